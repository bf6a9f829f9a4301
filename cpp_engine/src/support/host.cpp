#include "sweep_engine/host.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "sweep_engine/classifier.h"
#include "sweep_engine/image.h"

namespace sweep_engine {

namespace {

// Measured: the medians of two runs agree within a few percent below 7 % stall, but not at 45 %.
constexpr double max_stall_share = 0.10;
constexpr double max_steal_share = 0.02;

std::string field_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(key, 0) != 0) continue;
    const std::size_t start = line.find_first_not_of(" \t:=", key.size());
    return start == std::string::npos ? std::string() : line.substr(start);
  }
  return {};
}

double stall_seconds() {
  const std::string line = field_value("/proc/pressure/cpu", "some");
  const std::size_t at = line.find("total=");
  return at == std::string::npos ? -1.0 : std::strtod(line.c_str() + at + 6, nullptr) * 1e-6;
}

double steal_seconds() {
  std::istringstream line(field_value("/proc/stat", "cpu "));
  double ticks = 0.0;
  for (int field = 0; field < 8; ++field) {  // user nice system idle iowait irq softirq steal
    if (!(line >> ticks)) return -1.0;
  }
  return ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

Json load_average() {
  double values[3];
  if (::getloadavg(values, 3) != 3) return {};
  return Json::array({values[0], values[1], values[2]});
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

int usable_cores() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

LoadSample sample_load() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration<double>(now).count(), stall_seconds(), steal_seconds()};
}

Json describe_noise(const LoadSample& before, const LoadSample& after) {
  const double duration_s = after.time_s - before.time_s;
  Json noise = Json::object();
  noise.set("duration_s", duration_s);
  std::string reason;
  const auto share = [&](const char* key, double from, double to, double per_s, double limit,
                         const char* what) {
    if (from < 0.0 || to < 0.0 || duration_s <= 0.0) {
      noise.set(key, Json());
      return;
    }
    const double value = (to - from) / (duration_s * per_s);
    noise.set(key, value);
    if (value > limit) {
      reason += (reason.empty() ? "" : "; ") + std::string(what) + " for " +
                std::to_string(std::lround(value * 100.0)) + " % of the time";
    }
  };
  share("cpu_stall_share", before.stall_s, after.stall_s, 1.0, max_stall_share, "tasks waited for a CPU");
  share("steal_share", before.steal_s, after.steal_s, std::thread::hardware_concurrency(), max_steal_share,
        "the hypervisor stole CPU time");
  noise.set("load_average", load_average());
  noise.set("trustworthy", reason.empty());
  noise.set("reason", reason);
  return noise;
}

Json describe_host() {
  struct utsname system {};
  ::uname(&system);
  Json host = Json::object();
  host.set("date", utc_now());
  const std::string cpu = processor_name();
  host.set("cpu", cpu.empty() ? std::string(system.machine) : cpu);
  host.set("cores", usable_cores());
  host.set("memory_mb", static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
                            static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1024.0 * 1024.0));
  host.set("os", std::string(system.sysname) + " " + system.release);
  host.set("ncnn", ncnn_version());
  host.set("onednn", onednn_version().empty() ? Json() : Json(onednn_version()));
  host.set("engine", SWEEP_ENGINE_VERSION);
  host.set("image_decoders", image_decoders());
  host.set("compiler", SWEEP_ENGINE_COMPILER);
  host.set("build_type", SWEEP_ENGINE_BUILD_TYPE);
  host.set("load_average", load_average());
  // The program does not read any energy counter.
  host.set("energy", "unavailable");
  return host;
}

std::string processor_name() {
  // Collapse repeated spaces.
  std::istringstream words(field_value("/proc/cpuinfo", "model name"));
  std::string name;
  for (std::string word; words >> word;) name += (name.empty() ? "" : " ") + word;
  const std::string family = field_value("/proc/cpuinfo", "cpu family");
  const std::string model = field_value("/proc/cpuinfo", "model\t");
  if (!name.empty() && !family.empty() && !model.empty()) {
    name += " (family " + family + ", model " + model + ")";
  }
  return name;
}

double peak_rss_mb() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

std::string describe_versions() {
  const std::string onednn = onednn_version();
  return std::string(SWEEP_ENGINE_VERSION) + " (ncnn " + ncnn_version() +
         (onednn.empty() ? "" : ", oneDNN " + onednn) + ")";
}

}  // namespace sweep_engine
