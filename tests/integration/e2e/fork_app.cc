// A host that forks: before and after it was in a federation, trained and
// predicted. Prints one line for each step; tests/integration/e2e starts it.
//
// usage: fork_app after-close|while-open BUNDLE MODEL_DIR HOME
//
// The child's part of while-open begins with what it must not do.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <selvage/selvage.hpp>
#include <string>
#include <vector>

namespace {

std::string Load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class App {
 public:
  App(std::string bundle, std::string model, std::string home)
      : bundle_(std::move(bundle)),
        model_(std::move(model)),
        home_(std::move(home)) {}

  selvage::Client Open(const std::string& name) const {
    selvage::Options options;
    options.state_dir = home_ + "/" + name;
    options.cache_dir = options.state_dir + "/cache";
    options.population = "wearables";
    options.enrolment_bundle = Load(bundle_);
    return selvage::Client(options);
  }

  // Everything that loads something: network, engine, their threads.
  void Use(selvage::Client& client, const std::string& who) const {
    const selvage::RunResult session = client.RunOnce();
    std::cout << who << " enrolled " << session.enrolled << " "
              << session.reason << std::endl;
    client.InstallModel({Load(model_ + "/plan.json"),
                         Load(model_ + "/program.json"), "",
                         Load(model_ + "/model.safetensors")});
    for (int i = 0; i < 90; ++i) {
      const std::int64_t what = i % 3;
      const float w = static_cast<float>(what);
      const float r = static_cast<float>(i % 10) / 20;
      const std::vector<float> reading = {w - 1 + r, r, -r, r - w};
      client.AddExample(
          "motion", {selvage::Tensor::Of(reading), selvage::Tensor::Of(what)});
    }
    std::cout << who << " trained " << (client.TrainLocally("activity") > 0)
              << std::endl;
    const std::vector<float> now = {1.2F, 0.2F, -0.2F, -1.8F};
    std::cout << who << " predicted "
              << (client.Predict("activity", now).values.at(2) > 0.9F)
              << std::endl;
  }

 private:
  const std::string bundle_;
  const std::string model_;
  const std::string home_;
};

// The child must end within a minute.
int Forked(const std::function<void()>& child) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    int code = 0;
    try {
      child();
    } catch (const std::exception& error) {
      std::cout << "child: " << error.what() << std::endl;
      code = 1;
    }
    _exit(code);
  }
  int status = 0;
  if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int Main(int argc, char** argv) {
  if (argc != 5) return 2;
  const std::string scenario = argv[1];
  const App app(argv[2], argv[3], argv[4]);
  if (scenario == "after-close") {
    {
      selvage::Client client = app.Open("parent");
      app.Use(client, "parent");
    }
    const int code = Forked([&] {
      selvage::Client client = app.Open("child");
      app.Use(client, "child");
    });
    std::cout << "child ended with " << code << std::endl;
    selvage::Client client = app.Open("parent");
    std::cout << "parent again " << client.RunOnce().enrolled << std::endl;
    return 0;
  }
  if (scenario == "while-open") {
    selvage::Client client = app.Open("parent");
    app.Use(client, "parent");
    const int code = Forked([&] {
      selvage_client* const ours = client.handle();
      std::uint64_t count = 0;
      std::cout << "child counts "
                << selvage_code_name(
                       selvage_count_examples(ours, "motion", &count))
                << " " << selvage_last_error() << std::endl;
      selvage_close(ours);
      std::cout << "child closes " << selvage_last_error() << std::endl;
      selvage::Client own = app.Open("child");
      const selvage::RunResult session = own.RunOnce();
      std::cout << "child alone " << selvage_outcome_name(session.outcome)
                << " " << session.reason << std::endl;
    });
    std::cout << "child ended with " << code << std::endl;
    std::cout << "parent again " << client.RunOnce().enrolled << std::endl;
    return 0;
  }
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const std::exception& error) {
    std::cout << "parent: " << error.what() << std::endl;
    return 1;
  }
}
