#include "check.h"
#include "sweep_engine/statistics.h"

TEST_CASE(percentile_interpolates_like_numpy) {
  const std::vector<double> values = {4.0, 1.0, 3.0, 2.0};
  CHECK_EQUAL(sweep_engine::percentile(values, 0.0), 1.0);
  CHECK_EQUAL(sweep_engine::percentile(values, 0.5), 2.5);
  CHECK_EQUAL(sweep_engine::percentile(values, 1.0), 4.0);
  CHECK(std::fabs(sweep_engine::percentile(values, 0.9) - 3.7) < 1e-12);
  CHECK_EQUAL(sweep_engine::percentile({7.0}, 0.99), 7.0);
}
