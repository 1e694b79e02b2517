// A device whose process dies at chosen calls of the engine.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "tests/unit/client/client_fixture.h"

namespace selvage::test {

class LifeFixture : public ClientFixture {
 protected:
  // Runs `what`; the process dies at its first call of the engine named `call`
  // and a new one opens what was on disk at that moment.
  void DieAt(const std::string& call, const std::function<void()>& what) {
    const Path copy = directory_.path() / ("life" + std::to_string(++lives_));
    bool dead = false;
    trainer_.state.before = [&](const std::string& name) -> Status {
      if (dead) return Unavailable("dead");
      if (name != call) return OkStatus();
      dead = true;
      std::filesystem::copy(state_dir_, copy,
                            std::filesystem::copy_options::recursive);
      return Unavailable("dead");
    };
    what();
    EXPECT_TRUE(dead) << "nothing called " << call;
    trainer_.state.before = [](const std::string&) { return OkStatus(); };
    client_.reset();
    state_dir_ = copy;
    next_run_ = Time{};
    Open();
  }

  // A global model whose first float, and so its every output, is `value`.
  void Offer(uint64_t version, float value) {
    server_->checkpoint.floats[0] = value;
    server_->PublishCheckpoint(server_->checkpoint);
    server_->Give(server_->NewOffer(version));
  }
  // Sessions until the offer was dealt with.
  void Install(uint64_t version, float value) {
    Offer(version, value);
    WaitForTurn();
    RunUntil(client::RunResult::kInstalled);
    WaitForTurn();
  }
  void PublishPlan(const std::function<void(plan::Plan&)>& change) {
    change(server_->plan);
    server_->Publish(server_->plan, server_->program);
  }

  Result<float> PredictOne() {
    SELVAGE_ASSIGN_OR_RETURN(
        const client::TrainableModel::Prediction prediction,
        client_->Predict("digits", Bytes(16, 0), 1));
    return prediction.values[0];
  }
  Status Train() {
    return client_->TrainLocally("digits", {}, cancel_).status();
  }
  client::ModelInfo Info() {
    const Result<client::ModelInfo> info = client_->Info("digits");
    EXPECT_THAT(info, IsOk());
    return info.ok() ? *info : client::ModelInfo{};
  }

  int lives_ = 0;
};

}  // namespace selvage::test
