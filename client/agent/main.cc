// selvage-device: runs the sessions of one device, or of a fleet of devices
// that share nothing but this process.
#include <malloc.h>
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"
#include "base/version.h"
#include "client/agent/device.h"
#include "client/agent/fleet.h"
#include "client/agent/notify.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {
namespace {

constexpr uint64_t kBundleSizeMax = 64 << 10;

struct Settings {
  std::string state;
  std::string fleet;
  int devices = 1;
  int first = 0;
  std::string name_prefix = "device-";
  std::string name;
  std::string bundle;
  std::string population;
  std::string device_class;
  std::string examples;
  std::string collection = "default";
  std::vector<std::string> inputs = {"x", "y"};
  int threads = 1;
  int stagger_ms = 0;
  std::string until_task;
  std::string results;
  bool once = false;
  bool json_progress = false;
  bool insecure = false;
  std::string log_level = "warning";
};

// What one hosted device owns. Nothing here is shared with another device.
struct HostedDevice {
  std::string name;
  DeviceData data;
  std::unique_ptr<host::Client> client;
};

std::string DeviceName(const Settings& settings, int index) {
  if (settings.fleet.empty()) return settings.name;
  char number[16];
  std::snprintf(number, sizeof number, "%03d", settings.first + index);
  return settings.name_prefix + number;
}

Result<HostedDevice> OpenDevice(const Settings& settings, int index,
                                const std::string& bundle, FileSystem& files) {
  HostedDevice device;
  device.name = DeviceName(settings, index);
  const Path home = settings.fleet.empty() ? Path(settings.state)
                                           : Path(settings.fleet) / device.name;
  device.data.collection = settings.collection;
  device.data.inputs = settings.inputs;
  if (!settings.examples.empty()) {
    device.data.folder = settings.fleet.empty()
                             ? Path(settings.examples)
                             : Path(settings.examples) / device.name;
  }
  host::Options options;
  options.state_dir = (home / "state").string();
  options.cache_dir = (home / "cache").string();
  options.population = settings.population;
  options.enrolment_bundle = bundle;
  options.device_name = device.name;
  options.device_class = settings.device_class;
  options.app_version = std::string(Version());
  options.insecure_loopback = settings.insecure;
  options.log_level = settings.log_level == "debug"  ? SELVAGE_LOG_DEBUG
                      : settings.log_level == "info" ? SELVAGE_LOG_INFO
                                                     : SELVAGE_LOG_WARNING;
  options.log = [](int32_t, const char* event) {
    // In one piece: many threads write.
    const std::string line = std::string(event) + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);
  };
  try {
    device.client = std::make_unique<host::Client>(options);
  } catch (const host::Error& error) {
    return StatusOf(error);
  }
  SELVAGE_RETURN_IF_ERROR(ImportExamples(files, device.data, *device.client));
  return device;
}

// One line per session, for people or for programs; never a control character.
void PrintResult(const Settings& settings, const FleetDevice& device,
                 const host::RunResult& result) {
  if (result.outcome == SELVAGE_NOTHING_TO_DO) return;
  const std::string outcome = selvage_outcome_name(result.outcome);
  std::string line;
  if (settings.json_progress) {
    // Names and tasks are [a-z0-9-]; the reason is left out, it may hold
    // anything.
    line = R"({"event":"session","device":")" + device.name +
           R"(","result":")" + outcome + R"(","task":")" + result.task +
           R"(","round":)" + std::to_string(result.round) + "}\n";
  } else {
    line = device.name + ": " + outcome;
    if (!result.task.empty()) line += " " + result.task;
    if (result.round > 0) line += " round " + std::to_string(result.round);
    if (!result.reason.empty()) line += " (" + result.reason + ")";
    line += "\n";
  }
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

Status WriteResults(const Settings& settings, FileSystem& files,
                    std::vector<HostedDevice>& devices) {
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(settings.results));
  for (HostedDevice& device : devices) {
    const Result<std::string> json = EvaluateDevice(
        files, device.data, device.name, settings.until_task, *device.client);
    if (!json.ok()) return json.status().WithContext(device.name);
    SELVAGE_RETURN_IF_ERROR(WriteFileDurably(
        files, Path(settings.results) / (device.name + ".json"),
        AsBytes(*json + "\n"), 0644));
  }
  return OkStatus();
}

// As a service of Type=notify; elsewhere nothing happens. Whoever does not
// listen is told nothing, which is no reason to stop.
void TellSystemd(std::string_view state) {
  const char* socket = std::getenv("NOTIFY_SOCKET");
  (void)Notify(socket == nullptr ? "" : socket, state);
}

Status Run(const Settings& settings, const sigset_t& signals, bool& stopped) {
  SystemClock clock;
  OsRandom random;
  PosixFileSystem files;
  std::string bundle;
  if (!settings.bundle.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes bytes,
                             ReadFile(files, settings.bundle, kBundleSizeMax));
    bundle = ToString(bytes);
  }
  std::vector<HostedDevice> devices;
  const int count = settings.fleet.empty() ? 1 : settings.devices;
  for (int i = 0; i < count; ++i) {
    Result<HostedDevice> device = OpenDevice(settings, i, bundle, files);
    if (!device.ok()) {
      return device.status().WithContext(DeviceName(settings, i));
    }
    devices.push_back(*std::move(device));
  }
  std::vector<FleetDevice> hosted;
  for (const HostedDevice& device : devices) {
    hosted.push_back({device.name, device.client.get()});
  }
  Fleet fleet(
      {.threads = settings.threads,
       .stagger = std::chrono::milliseconds(settings.stagger_ms),
       .until_task = settings.until_task,
       .once = settings.once},
      std::move(hosted), clock, random,
      [&settings](const FleetDevice& device, const host::RunResult& result) {
        PrintResult(settings, device, result);
      });
  // Signals are blocked in every thread and taken here, never in a handler. To
  // end this thread when the work is done, it is sent one.
  std::atomic<bool> finished{false};
  std::jthread waiter([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    if (finished.load()) return;
    stopped = true;
    fleet.Stop();
  });
  TellSystemd("READY=1");
  Status status = fleet.Run();
  TellSystemd("STOPPING=1");
  finished = true;
  pthread_kill(waiter.native_handle(), SIGTERM);
  waiter.join();
  if (status.ok() && !stopped && !settings.results.empty()) {
    status = WriteResults(settings, files, devices);
  }
  return status;
}

int Main(int argc, char** argv) {
  // Every large buffer given back to the system is faulted in again.
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Settings settings;
  CLI::App app(
      "Runs the sessions of one device, or of a fleet of devices.\n\n"
      "Examples:\n"
      "  selvage-device --state /var/lib/selvage --population demo \\\n"
      "      --bundle bundle.json --name kiosk-7 --examples data/\n"
      "  selvage-device --fleet fleet/ --devices 30 --population demo \\\n"
      "      --bundle bundle.json --examples data/ --until-task my-task \\\n"
      "      --results results/");
  app.set_version_flag("--version", "selvage-device " + std::string(Version()) +
                                        " (" + std::string(Commit()) + ")");
  CLI::Option* state =
      app.add_option("--state", settings.state, "Folder of a single device");
  app.add_option("--fleet", settings.fleet,
                 "Folder of a fleet: one subfolder per device")
      ->excludes(state);
  app.add_option("--devices", settings.devices, "Size of the fleet")
      ->check(CLI::Range(1, 100000));
  app.add_option("--first", settings.first,
                 "Number of the fleet's first device")
      ->check(CLI::Range(0, 999999));
  app.add_option("--name-prefix", settings.name_prefix,
                 "Fleet devices are called PREFIX000, PREFIX001, ...");
  app.add_option("--name", settings.name, "Wished id of a single device");
  app.add_option("--bundle", settings.bundle,
                 "Enrolment bundle, as `selvage token create` prints it; not "
                 "needed any more once enrolled");
  app.add_option("--population", settings.population, "Population to belong to")
      ->required();
  app.add_option("--device-class", settings.device_class,
                 "Told to the coordinator, e.g. gateway");
  app.add_option("--examples", settings.examples,
                 "Folder with train-NAME.idx for each input (fleet: one "
                 "subfolder per device); imported once");
  app.add_option("--collection", settings.collection,
                 "Collection the examples belong to");
  app.add_option("--inputs", settings.inputs,
                 "The program's inputs, in order (default x,y)")
      ->delimiter(',');
  app.add_option("--threads", settings.threads, "Sessions at a time")
      ->check(CLI::Range(1, 256));
  app.add_option("--stagger-ms", settings.stagger_ms,
                 "Spread the first sessions over this long")
      ->check(CLI::Range(0, 3'600'000));
  CLI::Option* until = app.add_option(
      "--until-task", settings.until_task,
      "Stop once every device has installed this task's final model");
  app.add_option("--results", settings.results,
                 "Then score each device on test-NAME.idx and write "
                 "DEVICE.json here")
      ->needs(until);
  app.add_flag("--once", settings.once, "One session per device");
  app.add_flag("--json-progress", settings.json_progress,
               "One JSON object per session on standard output");
  app.add_flag("--insecure-loopback", settings.insecure,
               "Allow a plaintext coordinator on this machine (for tests)");
  app.add_option("--log-level", settings.log_level, "debug, info or warning")
      ->check(CLI::IsMember({"debug", "info", "warning"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (settings.state.empty() == settings.fleet.empty()) {
    std::cerr << "selvage-device: give --state DIR or --fleet DIR\n";
    return 2;
  }
  bool stopped = false;
  const Status status = Run(settings, signals, stopped);
  if (!status.ok()) {
    std::cerr << "selvage-device: " << status.ToString() << "\n";
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace selvage::agent

int main(int argc, char** argv) { return selvage::agent::Main(argc, argv); }
