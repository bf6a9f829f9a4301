#include "model/checked_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "sweep_engine/sha256.h"

namespace sweep_engine {

namespace {

constexpr std::uint64_t text_limit = 16U << 20;

Status invalid_model(const std::string& message) { return {StatusCode::model_invalid, message}; }

}  // namespace

Result<std::shared_ptr<std::FILE>> open_checked_file(const std::string& folder, const FileSpec& file) {
  const std::string path = folder + "/" + file.name;
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return invalid_model(path + ": " + std::strerror(errno));
  // Before opening it: that would wait for the writer of a FIFO.
  if (!S_ISREG(info.st_mode)) return invalid_model(path + ": not a regular file");
  const std::shared_ptr<std::FILE> handle(std::fopen(path.c_str(), "rb"), [](std::FILE* f) {
    if (f != nullptr) std::fclose(f);
  });
  if (handle == nullptr) return invalid_model(path + ": " + std::strerror(errno));
  if (static_cast<std::uint64_t>(info.st_size) != file.bytes) {
    return invalid_model(file.name + ": " + std::to_string(info.st_size) +
                         " bytes, but model.json declares " + std::to_string(file.bytes) +
                         "; the file is damaged or belongs to another model. Export the model again");
  }
  Sha256 hash;
  std::vector<char> chunk(std::size_t{1} << 18);
  std::size_t got = 0;
  while ((got = std::fread(chunk.data(), 1, chunk.size(), handle.get())) > 0) hash.update(chunk.data(), got);
  if (hash.hex() != file.sha256) {
    return invalid_model(file.name +
                         ": the SHA-256 differs from model.json; the file was damaged or modified. "
                         "Export the model again");
  }
  std::rewind(handle.get());
  return handle;
}

Result<std::string> read_checked_text(const std::string& folder, const FileSpec& file) {
  const Result<std::shared_ptr<std::FILE>> handle = open_checked_file(folder, file);
  if (!handle.ok()) return handle.status();
  if (file.bytes > text_limit) return invalid_model(file.name + ": more than 16 MiB");
  std::string text(file.bytes, '\0');
  if (std::fread(text.data(), 1, text.size(), handle.value().get()) != text.size())
    return invalid_model(file.name + ": incomplete read");
  return text;
}

}  // namespace sweep_engine
