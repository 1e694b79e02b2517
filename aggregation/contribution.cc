#include "aggregation/contribution.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "aggregation/codec/checkpoint_codec.h"

namespace selvage::aggregation {
namespace {

using plan::ContributionName;

constexpr int64_t kOne = int64_t{1} << kScalarFractionBits;
constexpr double kLossMin = 1e-10;  // as in the paper's own code
static_assert(int64_t{plan::kWeightCapMax} * plan::kCohortMax *
                  plan::kOverSelectionMax <=
              INT64_MAX / (kDeclaredMax * kOne));

// Most that the steps of a device can add up to.
double StepsMax(const plan::TrainSpec& train, int weight_cap, uint32_t weight) {
  auto steps = static_cast<double>(kDeclaredMax);
  if (train.local_steps > 0) {
    steps = train.local_steps;
  } else if (weight < static_cast<uint32_t>(weight_cap)) {
    const auto batch = static_cast<uint32_t>(train.batch_size);
    steps =
        train.local_epochs * static_cast<double>((weight + batch - 1) / batch);
  }
  return std::min(static_cast<double>(kDeclaredMax),
                  steps / (1 - train.optimizer.momentum));
}

Status Outside(int64_t value, int64_t least, int64_t most) {
  return OutOfRange("scalar 0 is " + std::to_string(value) +
                    ", the bounds are " + std::to_string(least) + " and " +
                    std::to_string(most));
}

}  // namespace

std::vector<size_t> ContributionCounts(ContributionName name,
                                       const plan::TensorTable& table) {
  std::vector<size_t> counts = UpdateCounts(table);
  if (name != ContributionName::kScaffold) return counts;
  for (const auto& slice : table.aggregated()) {
    if (slice.role == plan::Role::kShared) counts.push_back(slice.count);
  }
  return counts;
}

size_t SharedCount(const plan::TensorTable& table) {
  size_t count = 0;
  for (const auto& slice : table.aggregated()) {
    if (slice.role == plan::Role::kShared) count += slice.count;
  }
  return count;
}

std::vector<float> ControlChange(std::span<const float> control,
                                 std::span<const float> delta, double rate) {
  std::vector<float> change(control.size());
  for (size_t i = 0; i < change.size(); ++i) {
    change[i] = static_cast<float>(-static_cast<double>(control[i]) -
                                   static_cast<double>(delta[i]) / rate);
  }
  return change;
}

size_t DeclaredScalars(ContributionName name) {
  switch (name) {
    case ContributionName::kPlain:
    case ContributionName::kScaffold:
      return 0;
    case ContributionName::kFedNova:
    case ContributionName::kQFedAvg:
      return 1;
  }
  return 0;
}

double NormalisedSteps(
    const plan::OptimizerSpec& optimizer, double proximal_mu, uint64_t steps,
    const std::function<double(uint64_t step)>& rate_factor) {
  if (optimizer.momentum == 0 && proximal_mu == 0 && !rate_factor) {
    return static_cast<double>(steps);
  }
  // The way from the start, in units of lr, if every gradient of the loss were
  // one: the steps are linear in the gradients.
  double velocity = 0;
  double way = 0;
  for (uint64_t step = 0; step < steps; ++step) {
    const double gradient = 1 - proximal_mu * optimizer.lr * way;
    velocity = optimizer.momentum * velocity + gradient;
    const double move = optimizer.nesterov
                            ? gradient + optimizer.momentum * velocity
                            : velocity;
    way += (rate_factor ? rate_factor(step) : 1.0) * move;
  }
  return way;
}

Result<int64_t> DeclareSteps(uint32_t weight, double tau) {
  if (!(tau > 0) || tau > static_cast<double>(kDeclaredMax)) {
    return OutOfRange("the local steps add up to " + std::to_string(tau) +
                      ", not to (0, " + std::to_string(kDeclaredMax) + "]");
  }
  const double scaled = static_cast<double>(weight) * tau * kOne;
  return std::max<int64_t>(1, std::llround(scaled));
}

Result<LossWeight> WeighByLoss(const plan::ContributionSpec& contribution,
                               double lr, double loss, double norm) {
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    return OutOfRange("the loss of the received model (" +
                      std::to_string(loss) + ") or the norm of the update (" +
                      std::to_string(norm) + ") is not finite");
  }
  const double q = contribution.q;
  const double most = contribution.max_loss;
  const double bounded = std::clamp(loss, std::min(kLossMin, most), most);
  const double part = std::pow(bounded / most, q);
  LossWeight out;
  out.weight = static_cast<uint32_t>(
      std::max<long long>(1, std::llround(part * plan::kWeightCapMax)));
  // F^(q-1) / max_loss^q = part / F.
  const double growth = q / lr * norm * norm * part / bounded;
  const double declared =
      static_cast<double>(out.weight) + growth * plan::kWeightCapMax;
  const auto bound = static_cast<double>(kDeclaredMax * plan::kWeightCapMax);
  out.declared = std::llround(std::min(declared, bound) * kOne);
  return out;
}

Status CheckDeclared(const plan::ContributionSpec& contribution,
                     const plan::TrainSpec& train, int weight_cap,
                     uint32_t weight, std::span<const int64_t> scalars) {
  const size_t wanted = DeclaredScalars(contribution.name);
  if (scalars.size() != wanted) {
    return InvalidArgument(
        std::to_string(scalars.size()) + " scalars, a " +
        std::string(plan::ContributionNameText(contribution.name)) +
        " contribution declares " + std::to_string(wanted));
  }
  int64_t least = 1;
  int64_t most = 0;
  switch (contribution.name) {
    case ContributionName::kPlain:
    case ContributionName::kScaffold:
      return OkStatus();
    case ContributionName::kFedNova:
      // Half a unit is what rounding may add.
      most =
          static_cast<int64_t>(std::ceil(StepsMax(train, weight_cap, weight) *
                                         static_cast<double>(weight) * kOne));
      break;
    case ContributionName::kQFedAvg:
      least = static_cast<int64_t>(weight) * kOne;
      most = contribution.q == 0
                 ? least
                 : kDeclaredMax * int64_t{plan::kWeightCapMax} * kOne;
      break;
  }
  if (scalars[0] < least || scalars[0] > most) {
    return Outside(scalars[0], least, most);
  }
  return OkStatus();
}

double MeanFactor(ContributionName name, uint64_t weight_sum,
                  int64_t declared_sum) {
  const double weights = static_cast<double>(weight_sum);
  const double declared =
      static_cast<double>(declared_sum) / static_cast<double>(kOne);
  switch (name) {
    case ContributionName::kPlain:
    case ContributionName::kScaffold:
      return 1;
    case ContributionName::kFedNova:
      return declared / weights;
    case ContributionName::kQFedAvg:
      return weights / declared;
  }
  return 1;
}

}  // namespace selvage::aggregation
