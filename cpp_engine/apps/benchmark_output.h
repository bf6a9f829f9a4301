#pragma once

#include <string>

#include "sweep_engine/json.h"

namespace benchmark_output {

/// Whether `format` is one of those below.
bool is_format(const std::string& format);

/// A benchmark's record as text.
/// @param format  table (for people), md, csv (one line per row), json (all of it), jsonl (a row per line,
/// each
///                with its model and the context)
std::string text(const sweep_engine::Json& document, const std::string& format);

}  // namespace benchmark_output
