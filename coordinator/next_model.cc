#include "coordinator/next_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "aggregation/contribution.h"
#include "base/check.h"

namespace selvage::coordinator {

namespace {

// The state is not stepped with the tensors, but by values of its own.
bool IsControlled(const TaskDefinition& definition) {
  return definition.contribution.name == plan::ContributionName::kScaffold;
}

// Four at a time: one addition would wait for the one before it.
double Squares(std::span<const double> values) {
  std::array<double, 4> sums{};
  size_t i = 0;
  for (; i + sums.size() <= values.size(); i += sums.size()) {
    for (size_t k = 0; k < sums.size(); ++k) {
      sums[k] += values[i + k] * values[i + k];
    }
  }
  for (; i < values.size(); ++i) sums[0] += values[i] * values[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

// What a strategy remembers, moved from one blob to the next. The second
// moments follow the first ones: they are a blob of their own until both are
// joined.
class NextModel::State {
 public:
  // nullptr: the strategy has none.
  static Result<std::unique_ptr<State>> Create(const TaskDefinition& definition,
                                               const VersionRow& base,
                                               BlobStore& blobs) {
    const plan::StrategySpec& strategy = definition.spec.strategy;
    const size_t count = aggregation::SharedCount(definition.program.table);
    const aggregation::ServerStateForm form =
        aggregation::FormOf(strategy, count);
    if (!form.has_momentum) return std::unique_ptr<State>();
    std::unique_ptr<State> state(new State(form, count, blobs));
    if (!base.server_state_digest.empty()) {
      SELVAGE_ASSIGN_OR_RETURN(state->old_,
                               blobs.Open(base.server_state_digest));
      Bytes head(std::min<uint64_t>(form.head.size(), state->old_->size()));
      SELVAGE_RETURN_IF_ERROR(
          ReadExactly(*state->old_, 0, head, "server state"));
      const uint64_t size =
          form.head.size() +
          (form.has_second_moment ? 2 : 1) * sizeof(float) * uint64_t{count};
      if (head != form.head || state->old_->size() != size) {
        return DataLoss("server state: it is another strategy's or model's");
      }
    }
    SELVAGE_ASSIGN_OR_RETURN(state->momentum_.blob, BlobBuffer::Create(blobs));
    SELVAGE_RETURN_IF_ERROR(state->momentum_.blob->Append(form.head));
    if (form.has_second_moment) {
      SELVAGE_ASSIGN_OR_RETURN(state->second_.blob, BlobBuffer::Create(blobs));
    }
    return state;
  }

  // What there is of the next `count` elements.
  Status Load(size_t count) {
    SELVAGE_RETURN_IF_ERROR(Load(momentum_, count, form_.head.size(), 0));
    if (!form_.has_second_moment) return OkStatus();
    SELVAGE_RETURN_IF_ERROR(Load(second_, count,
                                 form_.head.size() + count_ * sizeof(float),
                                 form_.initial_second_moment));
    if (std::any_of(second_.values.begin(), second_.values.end(),
                    [](float value) { return value < 0; })) {
      return DataLoss("server state: a value is impossible");
    }
    return OkStatus();
  }
  std::span<float> momentum() { return momentum_.values; }
  std::span<float> second_moment() { return second_.values; }
  // They were moved.
  Status Save() {
    next_ += momentum_.values.size();
    for (Moments* moments : {&momentum_, &second_}) {
      if (!moments->blob.has_value()) continue;
      SELVAGE_RETURN_IF_ERROR(moments->blob->Append(
          AsBytes(std::span<const float>(moments->values))));
    }
    return OkStatus();
  }

  Status Store(VersionArtefacts& artefacts) {
    SELVAGE_CHECK(next_ == count_);
    std::vector<crypto::Digest> pieces;
    uint64_t size = 0;
    for (Moments* moments : {&momentum_, &second_}) {
      if (!moments->blob.has_value()) continue;
      SELVAGE_ASSIGN_OR_RETURN(const auto named, moments->blob->Finish());
      artefacts.artefacts.push_back(named);
      pieces.push_back(named.first);
      size += named.second;
    }
    artefacts.server_state_digest = pieces.front();
    if (pieces.size() == 1) return OkStatus();
    SELVAGE_ASSIGN_OR_RETURN(artefacts.server_state_digest,
                             blobs_.PutJoined(pieces));
    artefacts.artefacts.push_back({artefacts.server_state_digest, size});
    return OkStatus();
  }

 private:
  struct Moments {
    std::vector<float> values;
    std::optional<BlobBuffer> blob;
  };
  State(aggregation::ServerStateForm form, size_t count, BlobStore& blobs)
      : form_(std::move(form)), count_(count), blobs_(blobs) {}

  Status Load(Moments& moments, size_t count, uint64_t begin, float initial) {
    moments.values.assign(count, initial);
    if (old_ == nullptr) return OkStatus();
    SELVAGE_RETURN_IF_ERROR(
        ReadExactly(*old_, begin + next_ * sizeof(float),
                    {reinterpret_cast<uint8_t*>(moments.values.data()),
                     count * sizeof(float)},
                    "server state"));
    if (!std::all_of(moments.values.begin(), moments.values.end(),
                     [](float value) { return std::isfinite(value); })) {
      return DataLoss("server state: a value is impossible");
    }
    return OkStatus();
  }

  const aggregation::ServerStateForm form_;
  const size_t count_;
  BlobStore& blobs_;
  std::unique_ptr<ArtefactReader> old_;  // nullptr: the initial one
  size_t next_ = 0;                      // elements that were moved
  Moments momentum_;
  Moments second_;
};

NextModel::NextModel(const TaskDefinition& definition,
                     std::unique_ptr<MasterReader> base, Mean mean,
                     std::unique_ptr<State> state, bool ahead)
    : definition_(definition),
      base_(std::move(base)),
      mean_(std::move(mean)),
      state_(std::move(state)),
      ahead_(ahead),
      slices_(definition.program.table.entries().size()) {
  for (const auto& slice : definition.program.table.aggregated()) {
    slices_[slice.entry] = &slice;
  }
}

NextModel::~NextModel() = default;

Result<std::unique_ptr<NextModel>> NextModel::Create(
    const TaskDefinition& definition, const VersionRow& base, Mean mean,
    BlobStore& blobs, size_t threads) {
  SELVAGE_ASSIGN_OR_RETURN(
      std::unique_ptr<MasterReader> master,
      MasterReader::Open(definition.program.table, base.master_digest, blobs));
  SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<State> state,
                           State::Create(definition, base, blobs));
  return std::unique_ptr<NextModel>(
      new NextModel(definition, std::move(master), std::move(mean),
                    std::move(state), threads > 1));
}

Status NextModel::Step(const plan::TensorTable::AggregatedSlice& slice,
                       std::span<const double> delta, std::span<float> values) {
  if (slice.role == plan::Role::kBufferFloat) {
    return aggregation::ApplyMean(delta, values);
  }
  squares_ += Squares(delta);
  if (state_ == nullptr || IsControlled(definition_)) {
    return aggregation::ApplyServerStep(definition_.spec.strategy, delta, {},
                                        {}, values);
  }
  SELVAGE_RETURN_IF_ERROR(state_->Load(values.size()));
  SELVAGE_RETURN_IF_ERROR(aggregation::ApplyServerStep(
      definition_.spec.strategy, delta, state_->momentum(),
      state_->second_moment(), values));
  return state_->Save();
}

Status NextModel::Read(size_t entry, size_t begin, std::span<float> out) {
  SELVAGE_RETURN_IF_ERROR(base_->Read(entry, begin, out));
  const auto* const slice = slices_[entry];
  if (slice == nullptr) return OkStatus();
  while (!out.empty()) {
    SELVAGE_RETURN_IF_ERROR(TakeMean());
    const size_t count = std::min(out.size(), deltas_.size() - used_);
    const Status stepped =
        Step(*slice, std::span<const double>(deltas_).subspan(used_, count),
             out.first(count));
    if (!stepped.ok()) {
      const auto& spec = definition_.program.table.entries()[entry].spec;
      return stepped.WithContext("tensor " + spec.name);
    }
    used_ += count;
    out = out.subspan(count);
  }
  return OkStatus();
}

Status NextModel::TakeMean() {
  if (used_ < deltas_.size()) return OkStatus();
  std::vector<double>().swap(deltas_);  // before there is another one
  SELVAGE_ASSIGN_OR_RETURN(deltas_, next_.valid() ? next_.get() : mean_());
  SELVAGE_CHECK(!deltas_.empty());
  used_ = 0;
  taken_ += deltas_.size();
  if (ahead_ && taken_ < definition_.layout.element_count()) {
    next_ = std::async(std::launch::async, mean_);
  }
  return OkStatus();
}

Status NextModel::MoveControl() {
  for (size_t left = aggregation::SharedCount(definition_.program.table);
       left > 0;) {
    SELVAGE_RETURN_IF_ERROR(TakeMean());
    const size_t count = std::min(left, deltas_.size() - used_);
    SELVAGE_RETURN_IF_ERROR(state_->Load(count));
    SELVAGE_RETURN_IF_ERROR(
        aggregation::ApplyMean(
            std::span<const double>(deltas_).subspan(used_, count),
            state_->momentum())
            .WithContext("the control variate"));
    SELVAGE_RETURN_IF_ERROR(state_->Save());
    used_ += count;
    left -= count;
  }
  return OkStatus();
}

Status NextModel::StoreState(VersionArtefacts& artefacts) {
  if (state_ == nullptr) return OkStatus();
  if (!IsControlled(definition_)) return state_->Store(artefacts);
  SELVAGE_RETURN_IF_ERROR(MoveControl());
  SELVAGE_RETURN_IF_ERROR(state_->Store(artefacts));
  artefacts.references.push_back(artefacts.server_state_digest);
  return OkStatus();
}

}  // namespace selvage::coordinator
