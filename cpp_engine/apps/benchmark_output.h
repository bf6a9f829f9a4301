#pragma once

#include <string>

#include "sweep_engine/json.h"

namespace benchmark_output {

/// Whether `format` is a format of text().
bool is_format(const std::string& format);

/// Format a benchmark record.
/// @param format  table (aligned columns), md (Markdown), csv (one line per result), json (the whole record),
///                jsonl (one result per line, with its model and the context)
std::string text(const sweep_engine::Json& document, const std::string& format);

}  // namespace benchmark_output
