#include "benchmark_output.h"

#include <algorithm>
#include <cstdio>
#include <vector>

namespace benchmark_output {

namespace {

using sweep_engine::Json;
using Row = std::vector<std::string>;

struct Column {
  const char* name;     ///< in CSV
  const char* heading;  ///< in tables; empty: not shown
  const char* path;     ///< member path, separated by dots
  int decimals;         ///< decimal places; -1: not a number; -2: scientific notation
};

const std::vector<Column> columns = {
    {"scenario", "scenario", "scenario", -1},
    {"precision", "precision", "precision", -1},
    {"kernels", "kernels", "kernels", -1},
    {"threads", "threads", "threads", 0},
    {"batch", "batch", "batch", 0},
    {"workers", "workers", "workers", 0},
    {"min_ms", "min ms", "latency_ms.min", 3},
    {"p50_ms", "p50 ms", "latency_ms.p50", 3},
    {"p90_ms", "p90 ms", "latency_ms.p90", 3},
    {"p99_ms", "p99 ms", "latency_ms.p99", 3},
    {"cpu_p50_ms", "cpu ms", "cpu_ms_p50", 3},
    {"images_per_s", "images/s", "images_per_s", 1},
    {"gflops", "GFLOP/s", "gflops", 0},
    {"peak_gflops", "peak", "peak_gflops", 0},
    {"load_ms", "load ms", "load_ms", 1},
    {"first_inference_ms", "1st ms", "first_inference_ms", 2},
    {"peak_rss_mb", "RSS MiB", "peak_rss_mb", 1},
    {"accuracy_top1", "top-1", "accuracy_top1", 4},
    {"parity_max_abs", "max err", "parity_max_abs", -2},
    {"parity_top1_agreement", "", "parity_top1_agreement", 4},
    {"repetitions", "", "repetitions", 0},
};

const Json* find(const Json& row, std::string path) {
  const Json* value = &row;
  while (value != nullptr && !path.empty()) {
    const std::size_t dot = path.find('.');
    value = value->find(path.substr(0, dot).c_str());
    path = dot == std::string::npos ? "" : path.substr(dot + 1);
  }
  return value;
}

std::string number(double value, const char* format, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, format, decimals, value);
  return text;
}

/// @param full_precision  all digits of a number instead of rounding
std::string cell(const Json& row, const Column& column, bool full_precision) {
  const Json* value = find(row, column.path);
  if (value == nullptr || value->is(Json::Kind::null)) return full_precision ? "" : "-";
  if (value->is(Json::Kind::string)) return value->string();
  if (full_precision) return value->text();
  if (column.decimals == -2) return number(value->number(), "%.*e", 1);
  return number(value->number(), "%.*f", column.decimals);
}

std::string csv(const Json& document) {
  std::string text = "model";
  for (const Column& column : columns) text += std::string(",") + column.name;
  text += "\n";
  for (const Json& row : document.find("results")->items()) {
    const Json& model =
        document.find("models")->items()[static_cast<std::size_t>(row.find("model")->number())];
    text += model.find("name")->string();
    for (const Column& column : columns) text += "," + cell(row, column, true);
    text += "\n";
  }
  return text;
}

std::string jsonl(const Json& document) {
  std::string text;
  for (const Json& row : document.find("results")->items()) {
    Json line = Json::object();
    line.set("schema_version", document.find("schema_version")->number());
    line.set("context", *document.find("context"));
    line.set("model",
             document.find("models")->items()[static_cast<std::size_t>(row.find("model")->number())]);
    line.set("result", row);
    text += line.text() + "\n";
  }
  return text;
}

std::vector<Row> table_rows(const Json& document) {
  std::vector<Row> table(1);
  for (const Column& column : columns) {
    if (*column.heading != '\0') table[0].emplace_back(column.heading);
  }
  for (const Json& row : document.find("results")->items()) {
    Row cells;
    for (const Column& column : columns) {
      if (*column.heading != '\0') cells.push_back(cell(row, column, false));
    }
    table.push_back(cells);
  }
  return table;
}

std::string align(const std::vector<Row>& table, bool markdown) {
  std::vector<std::size_t> widths(table[0].size(), 3);
  for (const Row& row : table) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (std::size_t line = 0; line < table.size(); ++line) {
    for (std::size_t i = 0; i < table[line].size(); ++i) {
      const std::string padding(widths[i] - table[line][i].size(), ' ');
      // The first three columns are text and left-aligned; numbers are right-aligned.
      text += (markdown ? "| "
               : i == 0 ? ""
                        : "  ") +
              (i < 3 ? table[line][i] + padding : padding + table[line][i]);
      if (markdown) text += " ";
    }
    text += markdown ? "|\n" : "\n";
    if (!markdown || line > 0) continue;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      text += "| " + std::string(widths[i] - 1, '-') + (i < 3 ? "-" : ":") + " ";
    }
    text += "|\n";
  }
  return text;
}

std::string table(const Json& document) {
  const Json* context = document.find("context");
  std::string text = document.find("models")->items()[0].find("name")->string() + " on " +
                     context->find("cpu")->string() + "\n" + align(table_rows(document), false);
  for (const Json& model : document.find("models")->items()) {
    const std::string precision = model.find("precision")->string();
    if (const Json* accuracy = model.find("accuracy")) {
      text += "accuracy in " + precision + ": " + number(accuracy->find("top1")->number(), "%.*f", 4) + " (" +
              number(accuracy->find("correct")->number(), "%.*f", 0) + " of " +
              number(accuracy->find("images")->number(), "%.*f", 0) + " images)\n";
    }
  }
  for (const Json& warning : context->find("warnings")->items())
    text += "warning: " + warning.string() + "\n";
  const Json* noise = context->find("noise");
  if (!noise->find("trustworthy")->boolean()) {
    text += "warning: the machine was busy (" + noise->find("reason")->string() +
            "); the results are unreliable\n";
  }
  return text;
}

}  // namespace

bool is_format(const std::string& format) {
  for (const char* known : {"table", "md", "csv", "json", "jsonl"}) {
    if (format == known) return true;
  }
  return false;
}

std::string text(const Json& document, const std::string& format) {
  if (format == "md") return align(table_rows(document), true);
  if (format == "csv") return csv(document);
  if (format == "json") return document.text(2) + "\n";
  if (format == "jsonl") return jsonl(document);
  return table(document);
}

}  // namespace benchmark_output
