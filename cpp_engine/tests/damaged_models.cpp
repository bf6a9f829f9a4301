// Fuzz test: load randomly damaged model folders. Each load must fail with a message or give finite logits,
// and folders with wrong hashes must be rejected. Run it with sanitizers: cmake --preset asan.

#include <cstdio>
#include <cstdlib>
#include <random>

#include "sweep_engine/classifier.h"
#include "tiny_model.h"

namespace {

using Random = std::mt19937;

std::size_t random_index(Random& random, std::size_t count) { return random() % count; }

/// Flip a bit, truncate, or delete, duplicate or overwrite bytes.
std::string damage_bytes(std::string data, Random& random) {
  const std::size_t at = random_index(random, data.size());
  switch (random_index(random, 5)) {
    case 0: data[at] = static_cast<char>(data[at] ^ (1 << random_index(random, 8))); break;
    case 1: data.resize(at); break;
    case 2: data.erase(at, 1 + random_index(random, 8)); break;
    case 3: data.insert(at, data.substr(at, 1 + random_index(random, 40))); break;
    default: data.replace(at, 4, std::string(4, static_cast<char>(random()))); break;
  }
  return data;
}

/// Replace a number of the text by an extreme, negative or malformed one.
std::string damage_number(std::string text, Random& random) {
  const char* const numbers[] = {"0",    "-1",       "1",     "2",          "3",
                                 "7",    "64",       "65536", "2147483647", "-2147483648",
                                 "1e9",  "nan",      "0.5",   "",           "99999999999999999999",
                                 "-233", "268435456"};
  std::size_t at = random_index(random, text.size());
  at = text.find_first_of("0123456789", at);
  if (at == std::string::npos) return damage_bytes(text, random);
  const std::size_t end = std::min(text.find_first_not_of("0123456789", at), text.size());
  return text.replace(at, end - at, numbers[random_index(random, sizeof numbers / sizeof numbers[0])]);
}

std::string damage_text(const std::string& text, Random& random) {
  return random_index(random, 3) == 0 ? damage_bytes(text, random) : damage_number(text, random);
}

enum class Outcome { rejected, loaded };

Outcome load(const std::string& folder, bool tries_onednn, Random& random) {
  sweep_engine::ClassifierOptions options;
  options.self_test = random_index(random, 2) == 0;
  if (tries_onednn && random_index(random, 3) != 0) options.kernels = sweep_engine::Kernels::onednn;
  const auto model = sweep_engine::Classifier::load(folder, options);
  if (!model.ok()) {
    if (model.status().message().empty()) std::abort();
    return Outcome::rejected;
  }
  const std::size_t size = model.value().manifest().input.size();
  (void)model.value().logits(std::vector<std::uint8_t>(size, 100)).ok();
  return Outcome::loaded;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 200;
  const tiny_model::Folder folder;
  const tiny_model::Files networks[] = {tiny_model::files(), tiny_model::residual_files("fp32"),
                                        tiny_model::residual_files("int8")};
  Random random(20261020);
  int rejected = 0;
  int loaded = 0;
  int wrongly_accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    const tiny_model::Files& good = networks[round % 3];
    const std::string manifest = good.manifest.text(1);
    const bool tries_onednn = round % 3 != 0 && !sweep_engine::onednn_version().empty();
    // Wrong hashes.
    std::string param = good.param;
    std::string bin = good.bin;
    (round % 2 == 0 ? param : bin) =
        round % 2 == 0 ? damage_text(good.param, random) : damage_bytes(good.bin, random);
    folder.write(param, bin, manifest);
    if ((param != good.param || bin != good.bin) &&
        load(folder.path(), tries_onednn, random) != Outcome::rejected)
      ++wrongly_accepted;

    // Matching hashes, as in a faulty export or an attack.
    tiny_model::Files rehashed = good;
    const std::size_t damaged = random_index(random, 3);
    if (damaged != 0) rehashed.param = damage_text(rehashed.param, random);
    if (damaged != 1) rehashed.bin = damage_bytes(rehashed.bin, random);
    tiny_model::update_hashes(rehashed);
    folder.write(rehashed);
    (load(folder.path(), tries_onednn, random) == Outcome::rejected ? rejected : loaded) += 1;

    folder.write(good.param, good.bin, damage_text(manifest, random));
    (load(folder.path(), tries_onednn, random) == Outcome::rejected ? rejected : loaded) += 1;
  }
  std::printf("%d folders: %d rejected for wrong hashes; of the others, %d rejected and %d loaded\n",
              3 * rounds, rounds - wrongly_accepted, rejected, loaded);
  if (wrongly_accepted > 0) std::printf("%d folders with wrong hashes were accepted\n", wrongly_accepted);
  return wrongly_accepted == 0 ? 0 : 1;
}
