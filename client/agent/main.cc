// selvage-device: runs the sessions of one device, or of a fleet of devices
// that share nothing but this process.
#include <malloc.h>
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "base/file_system.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/notify.h"
#include "base/random.h"
#include "base/version.h"
#include "client/agent/device.h"
#include "client/agent/device_loop.h"
#include "client/agent/fleet.h"
#include "client/agent/manifest.h"
#include "client/agent/predict_protocol.h"
#include "client/agent/predict_server.h"
#include "client/agent/spool.h"
#include "client/agent/sysfs.h"
#include "client/agent/waiter.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {
namespace {

constexpr uint64_t kBundleSizeMax = 64 << 10;
constexpr uint64_t kManifestSizeMax = 4 << 20;
constexpr uint64_t kModelSizeMax = uint64_t{2} << 30;

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
  // Of a single device.
  std::string model;
  std::string spool;
  bool spool_keep = false;
  std::vector<std::string> manifests;
  std::string predict_socket;
  std::string every = "0s";
  std::string jitter = "0s";
  bool offline = false;
  bool metered = false;
  std::string metered_file;
  double idle_load = 0;
  std::string sys = "/sys";
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

LogLevel LogLevelOf(const Settings& settings) {
  return settings.log_level == "debug"  ? LogLevel::kDebug
         : settings.log_level == "info" ? LogLevel::kInfo
                                        : LogLevel::kWarning;
}

// `conditions`: empty for a fleet, which nothing holds back.
Result<HostedDevice> OpenDevice(const Settings& settings, int index,
                                const std::string& bundle, FileSystem& files,
                                std::function<host::Conditions()> conditions) {
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
  options.conditions = std::move(conditions);
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

// Tells systemd twice in each watchdog period that the service is alive. Where
// that comes from is the loop and the conditions callback: what hangs is not.
class Watchdog {
 public:
  explicit Watchdog(Clock& clock) : clock_(clock) {
    if (const char* text = std::getenv("WATCHDOG_USEC"); text != nullptr) {
      period_ = Duration(std::strtoll(text, nullptr, 10) / 2);
    }
  }
  void Alive() {
    const Time now = clock_.Now();
    if (period_ <= Duration::zero() ||
        (now >= last_ && now - last_ < period_)) {
      return;
    }
    last_ = now;
    TellSystemd("WATCHDOG=1");
  }

 private:
  Clock& clock_;
  Duration period_{};
  Time last_{};
};

// Takes the signals of the process, which are blocked in every thread, and
// never in a handler.
class SignalThread {
 public:
  SignalThread(const sigset_t& signals, std::function<void(int)> on_signal)
      : thread_([this, signals, on_signal = std::move(on_signal)] {
          for (;;) {
            int signal = 0;
            sigwait(&signals, &signal);
            if (finished_.load()) return;
            on_signal(signal);
          }
        }) {}
  // To end the thread it is sent one.
  ~SignalThread() {
    finished_ = true;
    pthread_kill(thread_.native_handle(), SIGTERM);
    thread_.join();
  }
  SignalThread(const SignalThread&) = delete;
  SignalThread& operator=(const SignalThread&) = delete;

 private:
  std::atomic<bool> finished_{false};
  std::thread thread_;
};

Status InstallModel(const Settings& settings, FileSystem& files,
                    host::Client& client) {
  const Path folder = settings.model;
  host::ModelFiles model;
  const std::pair<const char*, std::string*> kParts[] = {
      {"plan.json", &model.plan},
      {"program.json", &model.program},
      {"archive.pt", &model.archive},
      {"model.safetensors", &model.checkpoint}};
  for (const auto& [name, to] : kParts) {
    const Result<Bytes> bytes = ReadFile(files, folder / name, kModelSizeMax);
    if (!bytes.ok()) {
      // Only programs that are archives have one.
      if (to == &model.archive &&
          bytes.status().code() == StatusCode::kNotFound) {
        continue;
      }
      return bytes.status().WithContext((folder / name).string());
    }
    *to = ToString(*bytes);
  }
  try {
    client.InstallModel(model);
    return OkStatus();
  } catch (const host::Error& error) {
    return StatusOf(error).WithContext("the model in " + folder.string());
  }
}

Result<std::optional<Spool>> OpenSpool(const Settings& settings,
                                       FileSystem& files, host::Client& client,
                                       EventSink& events) {
  std::optional<Spool> none;
  if (settings.spool.empty()) return none;
  SpoolOptions options;
  options.collection = settings.collection;
  options.inputs = settings.inputs;
  options.keep_done = settings.spool_keep;
  for (const std::string& path : settings.manifests) {
    const Result<Bytes> text = ReadFile(files, path, kManifestSizeMax);
    if (!text.ok()) return text.status().WithContext(path);
    Result<Manifest> manifest = ParseManifest(AsText(*text));
    if (!manifest.ok()) return manifest.status().WithContext(path);
    options.manifests.push_back(*std::move(manifest));
  }
  Result<Spool> spool = Spool::Open(settings.spool, std::move(options), events);
  if (!spool.ok()) return spool.status();
  SELVAGE_RETURN_IF_ERROR(spool->Declare(client));
  return std::optional<Spool>(*std::move(spool));
}

// The tasks as the thread of the sessions last saw them; only it may ask.
class TaskList {
 public:
  void Set(std::vector<std::string> tasks) {
    const MutexLock lock(mu_);
    tasks_ = std::move(tasks);
  }
  std::vector<std::string> Get() {
    const MutexLock lock(mu_);
    return tasks_;
  }

 private:
  Mutex mu_;
  std::vector<std::string> tasks_ SELVAGE_GUARDED_BY(mu_);
};

Status RunSingle(const Settings& settings, const std::string& bundle,
                 const sigset_t& signals, bool& stopped) {
  SystemClock clock;
  OsRandom random;
  PosixFileSystem files;
  StreamEventSink events(std::cerr, clock, StreamEventSink::Format::kText,
                         LogLevelOf(settings));
  Watchdog watchdog(clock);
  DeviceState state({.sys = settings.sys,
                     .metered = settings.metered,
                     .metered_file = settings.metered_file,
                     .idle_load_max = settings.idle_load,
                     .cpus = static_cast<int>(
                         std::max(1U, std::thread::hardware_concurrency()))},
                    clock);
  DeviceLoopOptions options;
  for (const auto& [name, text, to] :
       {std::tuple{"--every", &settings.every, &options.schedule.every},
        std::tuple{"--jitter", &settings.jitter, &options.schedule.jitter}}) {
    const Result<Duration> parsed = ParseDuration(*text);
    if (!parsed.ok()) return parsed.status().WithContext(name);
    *to = *parsed;
  }
  if (settings.offline && options.schedule.every == Duration::zero()) {
    options.schedule.every = std::chrono::hours(1);
  }
  options.offline = settings.offline;
  options.until_task = settings.until_task;
  options.once = settings.once;

  std::vector<HostedDevice> devices;
  {
    Result<HostedDevice> device =
        OpenDevice(settings, 0, bundle, files, [&state, &watchdog] {
          watchdog.Alive();
          return state.Now();
        });
    if (!device.ok()) {
      return device.status().WithContext(DeviceName(settings, 0));
    }
    devices.push_back(*std::move(device));
  }
  host::Client& client = *devices.front().client;
  if (!settings.model.empty()) {
    SELVAGE_RETURN_IF_ERROR(InstallModel(settings, files, client));
  }
  SELVAGE_ASSIGN_OR_RETURN(std::optional<Spool> spool,
                           OpenSpool(settings, files, client, events));
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<Waiter> waiter,
                           MakeWaiter(settings.spool, clock));
  TaskList tasks;
  std::unique_ptr<PredictServer> server;
  if (!settings.predict_socket.empty()) {
    const Predictor predict = [&client](
                                  const std::string& task, ByteSpan input,
                                  size_t count) -> Result<host::Prediction> {
      try {
        return client.Predict(task, input.data(), input.size(), count);
      } catch (const host::Error& error) {
        return StatusOf(error);
      }
    };
    SELVAGE_ASSIGN_OR_RETURN(
        server, PredictServer::Start(
                    {.path = settings.predict_socket},
                    [&tasks, predict](std::string_view line) {
                      return AnswerRequest(line, tasks.Get(), predict);
                    },
                    events));
  }
  const FleetDevice self{devices.front().name, &client};
  std::string last_status;
  DeviceLoop loop(
      options,
      {.on_result =
           [&](const host::RunResult& result) {
             PrintResult(settings, self, result);
           },
       .on_tasks =
           [&](std::vector<std::string> names) { tasks.Set(std::move(names)); },
       .on_status =
           [&](const std::string& status) {
             if (status == last_status) return;
             last_status = status;
             TellSystemd("STATUS=" + status);
           },
       .alive = [&] { watchdog.Alive(); }},
      client, spool.has_value() ? &*spool : nullptr, *waiter, clock, random,
      events);
  Status status;
  {
    const SignalThread signal_thread(signals, [&](int signal) {
      if (signal == SIGHUP) {
        loop.Hurry();
        return;
      }
      stopped = true;
      loop.Stop();
    });
    TellSystemd("READY=1");
    events.Write(LogLevel::kInfo, "agent_ready",
                 {{"device", devices.front().name}});
    status = loop.Run();
    TellSystemd("STOPPING=1");
  }
  server.reset();
  if (status.ok() && !stopped && !settings.results.empty()) {
    status = WriteResults(settings, files, devices);
  }
  return status;
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
  if (settings.fleet.empty()) {
    return RunSingle(settings, bundle, signals, stopped);
  }
  std::vector<HostedDevice> devices;
  for (int i = 0; i < settings.devices; ++i) {
    Result<HostedDevice> device = OpenDevice(settings, i, bundle, files, {});
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
  Status status;
  {
    const SignalThread signal_thread(signals, [&](int signal) {
      if (signal == SIGHUP) return;
      stopped = true;
      fleet.Stop();
    });
    TellSystemd("READY=1");
    status = fleet.Run();
    TellSystemd("STOPPING=1");
  }
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
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  Settings settings;
  CLI::App app(
      "Runs the sessions of one device, or of a fleet of devices.\n\n"
      "Examples:\n"
      "  selvage-device --state /var/lib/selvage --population demo \\\n"
      "      --bundle bundle.json --name kiosk-7 --spool spool/ \\\n"
      "      --manifest manifest.json --predict-socket predict.sock \\\n"
      "      --every 1h --jitter 10m\n"
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
  app.add_option("--model", settings.model,
                 "Folder with plan.json, program.json and model.safetensors "
                 "(and archive.pt): a first model, to predict and train with "
                 "before the first contact")
      ->needs(state);
  CLI::Option* spool = app.add_option(
      "--spool", settings.spool,
      "Folder that is watched for examples: .safetensors, .csv, or folders "
      "with a table, images and a manifest.json (docs/embedding.md)");
  spool->needs(state);
  app.add_option("--manifest", settings.manifests,
                 "What the examples of the spool look like (JSON); one for "
                 "each collection")
      ->needs(spool);
  app.add_flag("--spool-keep", settings.spool_keep,
               "Move what was imported to SPOOL/done instead of deleting it")
      ->needs(spool);
  app.add_option("--predict-socket", settings.predict_socket,
                 "Unix socket that answers predictions, one JSON object a line")
      ->needs(state);
  app.add_option("--every", settings.every,
                 "Time between sessions, e.g. 1h; the library's own window "
                 "wins where it is later. 0s: the window alone")
      ->needs(state);
  app.add_option("--jitter", settings.jitter,
                 "Each session up to this much later, e.g. 10m")
      ->needs(state);
  app.add_flag("--offline", settings.offline,
               "Never use the network: train every installed model on what is "
               "here (--every, by default 1h)")
      ->needs(state);
  app.add_flag("--metered", settings.metered,
               "The network costs: plans that want an unmetered one wait");
  app.add_option("--metered-file", settings.metered_file,
                 "The network costs while this file exists");
  app.add_option("--idle-load", settings.idle_load,
                 "The device is idle while others cause less load than this "
                 "per CPU, e.g. 0.3 (default: always idle)")
      ->check(CLI::Range(0.0, 1000.0));
  app.add_option("--sysfs", settings.sys,
                 "Where battery and temperature are read (default /sys)")
      ->group("");
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
