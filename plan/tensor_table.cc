#include "plan/tensor_table.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "plan/internal/text.h"

namespace selvage::plan {
namespace {

using internal::Quoted;

constexpr std::string_view kDTypeNames[] = {"f32", "i64", "u8"};
constexpr std::string_view kRoleNames[] = {"shared", "buffer_float",
                                           "buffer_int", "personal", "frozen"};
constexpr std::string_view kInitNames[] = {"zeros", "ones", "kaiming_uniform",
                                           "xavier_uniform", "normal"};

template <typename Enum, size_t N>
Result<Enum> Parse(const std::string_view (&names)[N], std::string_view what,
                   std::string_view name) {
  for (size_t i = 0; i < N; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
  }
  return InvalidArgument(std::string(what) + " " + Quoted(name) +
                         " is none of " +
                         internal::Join({std::begin(names), std::end(names)}));
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool IsPart(std::string_view part) {
  if (part.empty()) return false;
  if (IsDigit(part[0])) {  // a position in torch.nn.Sequential or ModuleList
    return std::all_of(part.begin(), part.end(), IsDigit) &&
           (part == "0" || part[0] != '0');
  }
  return std::all_of(part.begin(), part.end(),
                     [](char c) { return IsLetter(c) || IsDigit(c); });
}

bool IsTensorName(std::string_view name) {
  if (name.size() > kTensorNameSizeMax) return false;
  for (;;) {
    const size_t dot = name.find('.');
    if (!IsPart(name.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    name.remove_prefix(dot + 1);
  }
}

Result<size_t> CountElements(const TensorSpec& spec) {
  const std::string who = "tensor " + spec.name + ": ";
  if (spec.shape.size() > kTensorRankMax) {
    return InvalidArgument(who + "rank " + std::to_string(spec.shape.size()) +
                           " exceeds " + std::to_string(kTensorRankMax));
  }
  int64_t count = 1;
  for (const int64_t dimension : spec.shape) {
    if (dimension < 1) {
      return InvalidArgument(who + "dimension " + std::to_string(dimension) +
                             " is not positive");
    }
    if (dimension > kElementCountMax / count) {
      return InvalidArgument(who + "more than " +
                             std::to_string(kElementCountMax) + " elements");
    }
    count *= dimension;
  }
  return static_cast<size_t>(count);
}

Status CheckSpec(const TensorSpec& spec) {
  if (!IsTensorName(spec.name)) {
    return InvalidArgument("tensor name " + Quoted(spec.name) +
                           " is not dotted identifiers of at most " +
                           std::to_string(kTensorNameSizeMax) + " characters");
  }
  const std::string who = "tensor " + spec.name + ": ";
  if (spec.name == "__metadata__") {
    return InvalidArgument(who + "the name is reserved by safetensors");
  }
  if (spec.dtype == DType::kUint8) {
    return InvalidArgument(who + "u8 is for inputs only");
  }
  const bool is_int = spec.dtype == DType::kInt64;
  if (is_int != (spec.role == Role::kBufferInt)) {
    return InvalidArgument(who + "role " + std::string(RoleName(spec.role)) +
                           " needs dtype " +
                           (spec.role == Role::kBufferInt ? "i64" : "f32") +
                           ", not " + std::string(DTypeName(spec.dtype)));
  }
  if (is_int && spec.init != Init::kZeros) {
    return InvalidArgument(who + "an i64 tensor starts as zeros");
  }
  return OkStatus();
}

}  // namespace

std::string_view DTypeName(DType dtype) {
  return kDTypeNames[static_cast<size_t>(dtype)];
}
Result<DType> ParseDType(std::string_view name) {
  return Parse<DType>(kDTypeNames, "dtype", name);
}
size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 4;
    case DType::kInt64:
      return 8;
    case DType::kUint8:
      return 1;
  }
  SELVAGE_CHECK(false);
}
std::string_view RoleName(Role role) {
  return kRoleNames[static_cast<size_t>(role)];
}
Result<Role> ParseRole(std::string_view name) {
  return Parse<Role>(kRoleNames, "role", name);
}
std::string_view InitName(Init init) {
  return kInitNames[static_cast<size_t>(init)];
}
Result<Init> ParseInit(std::string_view name) {
  return Parse<Init>(kInitNames, "init", name);
}

Result<TensorTable> TensorTable::Create(std::vector<TensorSpec> tensors) {
  if (tensors.empty() || tensors.size() > kTensorCountMax) {
    return InvalidArgument(std::to_string(tensors.size()) +
                           " tensors; a table has 1.." +
                           std::to_string(kTensorCountMax));
  }
  TensorTable table;
  size_t total = 0;
  for (TensorSpec& spec : tensors) {
    SELVAGE_RETURN_IF_ERROR(CheckSpec(spec));
    SELVAGE_ASSIGN_OR_RETURN(const size_t count, CountElements(spec));
    total += count;
    if (total > static_cast<size_t>(kElementCountMax)) {
      return InvalidArgument("tensor " + spec.name +
                             ": the table has more than " +
                             std::to_string(kElementCountMax) + " elements");
    }
    size_t& flat =
        spec.dtype == DType::kFloat32 ? table.float_count_ : table.int_count_;
    Entry entry;
    entry.count = count;
    entry.offset = flat;
    flat += count;
    if (spec.role == Role::kShared || spec.role == Role::kBufferFloat) {
      table.aggregated_.push_back({table.entries_.size(), entry.offset,
                                   table.update_count_, count, spec.role});
      table.update_count_ += count;
    }
    entry.spec = std::move(spec);
    table.entries_.push_back(std::move(entry));
  }
  table.by_name_.resize(table.entries_.size());
  std::iota(table.by_name_.begin(), table.by_name_.end(), size_t{0});
  const auto name = [&table](size_t i) -> const std::string& {
    return table.entries_[i].spec.name;
  };
  std::sort(table.by_name_.begin(), table.by_name_.end(),
            [&](size_t a, size_t b) { return name(a) < name(b); });
  for (size_t i = 1; i < table.by_name_.size(); ++i) {
    if (name(table.by_name_[i]) == name(table.by_name_[i - 1])) {
      return InvalidArgument("tensor " + name(table.by_name_[i]) +
                             " is there twice");
    }
  }
  // "body" cannot be a tensor and the module that holds "body.weight".
  for (const Entry& entry : table.entries_) {
    const std::string& full = entry.spec.name;
    for (size_t dot = full.find('.'); dot != std::string::npos;
         dot = full.find('.', dot + 1)) {
      const std::string_view module = std::string_view(full).substr(0, dot);
      if (table.Find(module) != nullptr) {
        return InvalidArgument("tensor " + full + ": " + std::string(module) +
                               " is a tensor, not a module");
      }
    }
  }
  return table;
}

const TensorTable::Entry* TensorTable::Find(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [this](size_t i, std::string_view wanted) {
                         return entries_[i].spec.name < wanted;
                       });
  if (found == by_name_.end() || entries_[*found].spec.name != name) {
    return nullptr;
  }
  return &entries_[*found];
}

bool TensorTable::Has(Role role) const {
  return std::any_of(
      entries_.begin(), entries_.end(),
      [role](const Entry& entry) { return entry.spec.role == role; });
}

bool operator==(const TensorTable& a, const TensorTable& b) {
  return std::equal(
      a.entries_.begin(), a.entries_.end(), b.entries_.begin(),
      b.entries_.end(),
      [](const TensorTable::Entry& x, const TensorTable::Entry& y) {
        return x.spec == y.spec;
      });
}

}  // namespace selvage::plan
