#include "check.h"
#include "sweep_engine/sha256.h"

namespace {

std::string hash_in_chunks(const std::string& text, std::size_t chunk) {
  sweep_engine::Sha256 hash;
  for (std::size_t at = 0; at < text.size(); at += chunk) {
    const std::string part = text.substr(at, chunk);
    hash.update(part.data(), part.size());
  }
  return hash.hex();
}

}  // namespace

// FIPS 180-4 examples.
TEST_CASE(sha256_matches_reference_digests) {
  CHECK_EQUAL(sweep_engine::Sha256().hex(),
              "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQUAL(hash_in_chunks("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQUAL(hash_in_chunks("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQUAL(hash_in_chunks(std::string(1000000, 'a'), 1000000),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE(sha256_is_independent_of_chunk_sizes) {
  const std::string text(1000, 'x');
  const std::string whole = hash_in_chunks(text, 1000);
  for (const std::size_t chunk : {1U, 7U, 63U, 64U, 65U, 128U, 999U})
    CHECK_EQUAL(hash_in_chunks(text, chunk), whole);
}
