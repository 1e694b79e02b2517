#include "aggregation/server_optimizer.h"

#include <cmath>
#include <string>

#include <Eigen/Core>

namespace selvage::aggregation {

Status ApplyFedAvg(double server_learning_rate,
                   std::span<const double> mean_delta,
                   std::span<float> master) {
  if (mean_delta.size() != master.size()) {
    return InvalidArgument(
        "mean delta has " + std::to_string(mean_delta.size()) +
        " elements, the model has " + std::to_string(master.size()));
  }
  const auto size = static_cast<Eigen::Index>(master.size());
  const Eigen::Map<const Eigen::ArrayXd> delta(mean_delta.data(), size);
  Eigen::Map<Eigen::ArrayXf> x(master.data(), size);
  // An expression, evaluated where it is used: once to look, once to store.
  const auto next =
      (x.cast<double>() + server_learning_rate * delta).cast<float>();
  for (Eigen::Index i = 0; i < size; ++i) {
    if (!std::isfinite(next(i))) {
      return OutOfRange("element " + std::to_string(i) +
                        " of the model would not be a finite float32");
    }
  }
  x = next;
  return OkStatus();
}

}  // namespace selvage::aggregation
