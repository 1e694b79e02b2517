// What an app outside the tree does: open a client, keep an example, ask for
// its models. No network.
#include <iostream>

#include "base/file_system.h"
#include "base/log.h"
#include "base/random.h"
#include "client/client.h"
#include "client/rpc/grpc_transport.h"
#include "client/training/torch/torch_trainer.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  selvage::SystemClock clock;
  selvage::OsRandom random;
  selvage::NullEventSink events;
  selvage::PosixFileSystem files;
  selvage::client::TorchTrainer trainer;
  selvage::client::ClientOptions options;
  options.state_dir = std::string(argv[1]) + "/state";
  options.cache_dir = std::string(argv[1]) + "/cache";
  options.population = "consumer";
  auto client = selvage::client::Client::Open(
      options,
      {.clock = clock,
       .random = random,
       .events = events,
       .files = files,
       .trainer = trainer,
       .transport = [](const selvage::client::Endpoint&)
           -> selvage::Result<std::unique_ptr<selvage::client::Transport>> {
         return selvage::Unavailable("this app is offline");
       }});
  if (!client.ok()) {
    std::cerr << client.status() << "\n";
    return 1;
  }
  const auto id = (*client)->AddExample("default", {.inputs = {{1, 2, 3}}});
  const auto count = (*client)->CountExamples("default");
  if (!id.ok() || !count.ok() || *count != 1) return 1;
  std::cout << "kept " << *count << " example\n";
  return 0;
}
