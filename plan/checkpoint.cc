#include "plan/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/random.h"

namespace selvage::plan {
namespace {

struct Fan {
  double in = 1;
  double out = 1;
};

Fan FanOf(const std::vector<int64_t>& shape) {
  if (shape.empty()) return {};
  if (shape.size() == 1) {
    return {static_cast<double>(shape[0]), static_cast<double>(shape[0])};
  }
  double field = 1;
  for (size_t i = 2; i < shape.size(); ++i) {
    field *= static_cast<double>(shape[i]);
  }
  return {static_cast<double>(shape[1]) * field,
          static_cast<double>(shape[0]) * field};
}

// N(0, 1) by the ratio of uniforms (Kinderman and Monahan, 1977). Unlike
// Box-Muller's, its values come from one division and one product, which IEEE
// 754 fixes to the bit; the library's log only decides what to throw away.
double StandardNormal(RandomSource& random) {
  constexpr double kSqrt8OverE = 1.7155277699214135;
  for (;;) {
    const double u = 1.0 - UniformUnit(random);  // (0, 1]
    const double v = UniformUnit(random) - 0.5;
    const double x = kSqrt8OverE * v / u;
    if (x * x <= -4.0 * std::log(u)) return x;
  }
}

void FillUniform(std::span<float> out, double bound, RandomSource& random) {
  for (float& value : out) {
    value = static_cast<float>(bound * (2 * UniformUnit(random) - 1));
  }
}

void Fill(const TensorSpec& spec, std::span<float> out, RandomSource& random) {
  constexpr double kNormalDeviation = 0.02;
  const Fan fan = FanOf(spec.shape);
  switch (spec.init) {
    case Init::kZeros:
      return;  // they are
    case Init::kOnes:
      for (float& value : out) value = 1;
      return;
    case Init::kKaimingUniform:
      return FillUniform(out, 1 / std::sqrt(fan.in), random);
    case Init::kXavierUniform:
      return FillUniform(out, std::sqrt(6 / (fan.in + fan.out)), random);
    case Init::kNormal:
      for (float& value : out) {
        value = static_cast<float>(kNormalDeviation * StandardNormal(random));
      }
      return;
  }
}

}  // namespace

Status ValidateCheckpoint(const TensorTable& table, const Checkpoint& values) {
  if (values.floats.size() != table.float_count()) {
    return InvalidArgument(
        "floats has " + std::to_string(values.floats.size()) +
        " values; the table has " + std::to_string(table.float_count()));
  }
  if (values.ints.size() != table.int_count()) {
    return InvalidArgument("ints has " + std::to_string(values.ints.size()) +
                           " values; the table has " +
                           std::to_string(table.int_count()));
  }
  for (const TensorTable::Entry& entry : table.entries()) {
    if (entry.spec.dtype != DType::kFloat32) continue;
    for (size_t i = 0; i < entry.count; ++i) {
      const float value = values.floats[entry.offset + i];
      if (!std::isfinite(value)) {
        return InvalidArgument("tensor " + entry.spec.name + ": element " +
                               std::to_string(i) + " is " +
                               std::to_string(value) + "; must be finite");
      }
    }
  }
  return OkStatus();
}

void InitialValues::Read(size_t entry, size_t begin, std::span<float> out) {
  const TensorSpec& spec = table_.entries()[entry].spec;
  if (begin == 0) random_.emplace(DeriveSeed(seed_, spec.name, 0));
  std::fill(out.begin(), out.end(), 0.0f);
  Fill(spec, out, *random_);
}

Checkpoint InitializeCheckpoint(const TensorTable& table, uint64_t seed) {
  Checkpoint values;
  values.floats.resize(table.float_count());
  values.ints.resize(table.int_count());
  InitialValues initial(table, seed);
  for (size_t i = 0; i < table.entries().size(); ++i) {
    const TensorTable::Entry& entry = table.entries()[i];
    if (entry.spec.dtype != DType::kFloat32) continue;
    initial.Read(i, 0,
                 std::span(values.floats).subspan(entry.offset, entry.count));
  }
  return values;
}

Bytes SerializeMaster(const Checkpoint& values) {
  const ByteSpan floats = AsBytes(std::span<const float>(values.floats));
  const ByteSpan ints = AsBytes(std::span<const int64_t>(values.ints));
  Bytes out;
  out.reserve(floats.size() + ints.size());
  AppendBytes(out, floats);
  AppendBytes(out, ints);
  return out;
}

crypto::Digest MasterDigest(const Checkpoint& values) {
  crypto::Sha256Hasher hasher;
  hasher.Update(AsBytes(std::span<const float>(values.floats)));
  hasher.Update(AsBytes(std::span<const int64_t>(values.ints)));
  return std::move(hasher).Finish();
}

Result<Checkpoint> ParseMaster(const TensorTable& table, ByteSpan bytes) {
  const size_t float_bytes = table.float_count() * sizeof(float);
  const size_t int_bytes = table.int_count() * sizeof(int64_t);
  if (bytes.size() != float_bytes + int_bytes) {
    return InvalidArgument("a checkpoint of " + std::to_string(bytes.size()) +
                           " bytes; the table needs " +
                           std::to_string(float_bytes + int_bytes));
  }
  Checkpoint values;
  values.floats.resize(table.float_count());
  values.ints.resize(table.int_count());
  if (float_bytes > 0) {
    std::memcpy(values.floats.data(), bytes.data(), float_bytes);
  }
  if (int_bytes > 0) {
    std::memcpy(values.ints.data(), bytes.data() + float_bytes, int_bytes);
  }
  SELVAGE_RETURN_IF_ERROR(ValidateCheckpoint(table, values));
  return values;
}

}  // namespace selvage::plan
