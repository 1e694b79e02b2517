// From a trained model to what is sent: deltas of the tensors that may leave,
// checked strictly against the plan's bounds, encoded, weighed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "aggregation/metrics.h"
#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "client/core/update_bytes.h"
#include "crypto/digest.h"
#include "plan/checkpoint.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace selvage::client {

// The decoded checkpoint of a round, a tensor at a time.
class BaseTensors {
 public:
  virtual ~BaseTensors() = default;
  // All elements of the f32 tensor `entry` of the table.
  virtual Status Read(size_t entry, std::vector<float>& out) = 0;
};

struct UpdateInput {
  const plan::Checkpoint& base;     // the decoded checkpoint of the round
  const plan::Checkpoint& trained;  // same layout
  uint64_t example_count = 0;       // trained on, >= 1
  // Of the round's checkpoint: [holdout_count, program.metrics.size()],
  // row-major; both empty without a hold-out.
  std::span<const float> holdout_scores;
  size_t holdout_count = 0;
  // What earlier updates left out, by element of the update; empty: nothing.
  // Added to the delta if the codec is top_k.
  std::span<const float> residual = {};
  // fednova: aggregation::NormalisedSteps of the steps that moved the `shared`
  // tensors.
  double steps = 1;
  // qfedavg: the received model's mean on the examples that were trained on.
  double loss = 0;
  // scaffold: aggregation::ControlChange() of this training.
  std::span<const float> control_change = {};
  // For a codec that draws (aggregation/codec/codec.h).
  RandomSource* random = nullptr;
  // Instead of `base`, where BuildsByTensor(): the update is the same, and only
  // one tensor of it is in memory besides what is encoded.
  BaseTensors* base_tensors = nullptr;
  // With `base_tensors`: takes the encoding, in the place of
  // BuiltUpdate::encoded. Its errors are BuildUpdate()'s.
  UpdateSink* sink = nullptr;
};

// Whether an update of this plan can be built a tensor at a time: nothing in it
// depends on all tensors.
bool BuildsByTensor(const plan::Plan& plan);

// Sums over examples of each metric; `scores` is [count, metric_count],
// row-major. INVALID_ARGUMENT if it is not, if there is no example, or if a sum
// is not a number.
Result<std::vector<aggregation::MetricValue>> MetricsOf(
    std::span<const float> scores, size_t count, size_t metric_count);

struct BuiltUpdate {
  // Empty: it is where UpdateInput::sink put it, or this is an evaluation,
  // which is its metrics and no more.
  Bytes encoded;
  crypto::Digest digest;  // of the encoding, or aggregation::DigestOf(metrics)
  plan::CodecName codec = plan::CodecName::kFloat16;
  // min(example_count, plan.update.weight_cap); of qfedavg by the loss.
  uint32_t weight = 0;
  // What the plan's contribution declares (aggregation/contribution.h).
  std::vector<int64_t> scalars = {};
  std::vector<aggregation::MetricValue> metrics;
  // L2 norm of the update as the coordinator decodes it: the root of the sum of
  // squares in double, element after element in the order of the encoding.
  double norm = 0;
  // top_k only: what this update's commit adds to the residual, so that
  // nothing is lost: delta + residual (clipped) is what is sent plus the new
  // residual. Clipping lowers both alike: a residual never exceeds the clip.
  // scaffold: what it adds to the device's control variate, which is the change
  // of it as the coordinator decodes it: c stays the mean of what devices keep.
  std::vector<float> residual_change = {};
  // Of the encoding that UpdateInput::sink took; 0: none.
  uint64_t stored_bytes = 0;

  // Of the encoding, wherever it is.
  uint64_t size_bytes() const {
    return stored_bytes > 0 ? stored_bytes : encoded.size();
  }
};

// trained - base in float32 for every shared and buffer_float tensor, in table
// order; of fednova the shared ones divided by `steps`. Tensors of other roles
// are not even read: they have no way out.
//
// OUT_OF_RANGE names tensor, element, value and bound if a delta is not finite
// or not strictly inside the plan's max_abs for its role, before or after
// encoding: an element is never clipped. So is a number that the plan's
// contribution cannot declare.
//
// With privacy.clip the whole update, shared and buffer_float together, is
// scaled before encoding so that `norm` is at most its bound (clip.h), and the
// ranges hold for what is left. Together, because a bound on one part would say
// nothing of the other: all of it leaves the device, and a BatchNorm statistic
// tells of examples as a weight does. A plan that finds its norm eaten by
// statistics gives them the role `personal`. INVALID_ARGUMENT if shapes do not
// fit.
Result<BuiltUpdate> BuildUpdate(const plan::Program& program,
                                const plan::Plan& plan,
                                const UpdateInput& input);

}  // namespace selvage::client
