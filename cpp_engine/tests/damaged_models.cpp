// Load model folders damaged at random. Each must end in a message or in a finite answer, never in a signal;
// one whose hashes do not fit must be refused. Meant for the sanitizers: cmake --preset asan.

#include <cstdio>
#include <cstdlib>
#include <random>

#include "sweep_engine/classifier.h"
#include "tiny_model.h"

namespace {

using Random = std::mt19937;

std::size_t below(Random& random, std::size_t count) { return random() % count; }

/// Bytes flipped, cut out, doubled or cut off.
std::string damage_bytes(std::string data, Random& random) {
  const std::size_t at = below(random, data.size());
  switch (below(random, 5)) {
    case 0: data[at] = static_cast<char>(data[at] ^ (1 << below(random, 8))); break;
    case 1: data.resize(at); break;
    case 2: data.erase(at, 1 + below(random, 8)); break;
    case 3: data.insert(at, data.substr(at, 1 + below(random, 40))); break;
    default: data.replace(at, 4, std::string(4, static_cast<char>(random()))); break;
  }
  return data;
}

/// A number of the text replaced by one that is wrong, too large, negative or no number.
std::string damage_number(std::string text, Random& random) {
  const char* const numbers[] = {"0",    "-1",       "1",     "2",          "3",
                                 "7",    "64",       "65536", "2147483647", "-2147483648",
                                 "1e9",  "nan",      "0.5",   "",           "99999999999999999999",
                                 "-233", "268435456"};
  std::size_t at = below(random, text.size());
  at = text.find_first_of("0123456789", at);
  if (at == std::string::npos) return damage_bytes(text, random);
  const std::size_t end = std::min(text.find_first_not_of("0123456789", at), text.size());
  return text.replace(at, end - at, numbers[below(random, sizeof numbers / sizeof numbers[0])]);
}

std::string damage_text(const std::string& text, Random& random) {
  return below(random, 3) == 0 ? damage_bytes(text, random) : damage_number(text, random);
}

/// How one load ended: refused, or loaded and answered.
enum class End { refused, answered };

End load(const std::string& folder, Random& random) {
  sweep_engine::ClassifierOptions options;
  options.self_test = below(random, 2) == 0;
  const auto model = sweep_engine::Classifier::load(folder, options);
  if (!model.ok()) {
    if (model.status().message().empty()) std::abort();
    return End::refused;
  }
  const std::size_t size = model.value().manifest().input.size();
  (void)model.value().logits(std::vector<std::uint8_t>(size, 100)).ok();
  return End::answered;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 200;
  const tiny_model::Folder folder;
  const tiny_model::Files good = tiny_model::files();
  const std::string manifest = good.manifest.text(1);
  Random random(20261020);
  int refused = 0;
  int answered = 0;
  int wrong = 0;
  for (int round = 0; round < rounds; ++round) {
    // Hashes that no longer fit.
    std::string param = good.param;
    std::string bin = good.bin;
    (round % 2 == 0 ? param : bin) =
        round % 2 == 0 ? damage_text(good.param, random) : damage_bytes(good.bin, random);
    folder.write(param, bin, manifest);
    if ((param != good.param || bin != good.bin) && load(folder.path(), random) != End::refused) ++wrong;

    // Hashes that fit all the same: a damaged export, or an attacker's.
    tiny_model::Files sealed = good;
    if (round % 3 != 0) sealed.param = damage_text(sealed.param, random);
    if (round % 3 != 1) sealed.bin = damage_bytes(sealed.bin, random);
    tiny_model::seal(sealed);
    folder.write(sealed);
    (load(folder.path(), random) == End::refused ? refused : answered) += 1;

    folder.write(good.param, good.bin, damage_text(manifest, random));
    (load(folder.path(), random) == End::refused ? refused : answered) += 1;
  }
  std::printf("%d folders: %d refused for their hashes, of the others %d refused and %d answered\n",
              3 * rounds, rounds - wrong, refused, answered);
  if (wrong > 0) std::printf("%d folders with wrong hashes were accepted\n", wrong);
  return wrong == 0 ? 0 : 1;
}
