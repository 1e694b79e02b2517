#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/script.h>

#include "client/training/torch/computation.h"
#include "client/training/torch/native.h"
#include "client/training/torch/program_checks.h"
#include "client/training/torch/span_adapter.h"
#include "crypto/digest.h"

namespace selvage::client {
namespace torch_engine {
namespace {

namespace jit = torch::jit;

bool IsBufferRole(plan::Role role) {
  return role == plan::Role::kBufferFloat || role == plan::Role::kBufferInt;
}

c10::ScalarType ScalarTypeOf(plan::DType dtype) {
  switch (dtype) {
    case plan::DType::kFloat32:
      return torch::kFloat32;
    case plan::DType::kInt64:
      return torch::kInt64;
    case plan::DType::kUint8:
      return torch::kUInt8;
  }
  return torch::kFloat32;
}

std::string Shape(c10::IntArrayRef sizes) {
  std::string out = "[";
  for (size_t i = 0; i < sizes.size(); ++i) {
    out += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  }
  return out + "]";
}

// ---- source --------------------------------------------------------------

// Rows of the table as a tree of modules: body.weight is `weight` of `body`.
class ModuleTree {
 public:
  ModuleTree() : unit_(std::make_shared<jit::CompilationUnit>()) {
    modules_.emplace("", MakeModule("Program"));
  }

  Status Add(const plan::TensorSpec& spec) {
    const size_t dot = spec.name.rfind('.');
    const std::string path =
        dot == std::string::npos ? "" : spec.name.substr(0, dot);
    const std::string leaf =
        dot == std::string::npos ? spec.name : spec.name.substr(dot + 1);
    SELVAGE_ASSIGN_OR_RETURN(jit::Module module, Get(path));
    if (module.hasattr(leaf)) {
      return InvalidArgument("tensor " + spec.name +
                             " has the name of a module or of `training`");
    }
    const at::Tensor zeros = torch::zeros(spec.shape, ScalarTypeOf(spec.dtype));
    if (IsBufferRole(spec.role)) {
      module.register_buffer(leaf, zeros);
    } else {
      module.register_parameter(leaf, zeros, /*is_buffer=*/false);
    }
    return OkStatus();
  }

  jit::Module root() const { return modules_.at(""); }

 private:
  jit::Module MakeModule(const std::string& name) {
    jit::Module module(c10::QualifiedName("__torch__.selvage." + name), unit_);
    module.register_attribute("training", c10::BoolType::get(), true);
    return module;
  }

  // Creates the modules on the way.
  Result<jit::Module> Get(const std::string& path) {
    if (const auto found = modules_.find(path); found != modules_.end()) {
      return found->second;
    }
    const size_t dot = path.rfind('.');
    const std::string leaf =
        dot == std::string::npos ? path : path.substr(dot + 1);
    SELVAGE_ASSIGN_OR_RETURN(
        jit::Module parent,
        Get(dot == std::string::npos ? "" : path.substr(0, dot)));
    if (parent.hasattr(leaf)) {
      return InvalidArgument("module " + path +
                             " has the name of a tensor or of `training`");
    }
    jit::Module module = MakeModule("modules." + path);
    parent.register_module(leaf, module);
    modules_.emplace(path, module);
    return module;
  }

  std::shared_ptr<jit::CompilationUnit> unit_;
  std::map<std::string, jit::Module> modules_;
};

Result<jit::Module> CompileSource(const plan::Program& program) {
  SELVAGE_RETURN_IF_ERROR(
      CheckCode("source", program.source, CodeForm::kMethods));
  try {
    ModuleTree tree;
    for (const auto& entry : program.table.entries()) {
      SELVAGE_RETURN_IF_ERROR(tree.Add(entry.spec));
    }
    jit::Module module = tree.root();
    module.define(program.source);
    SELVAGE_RETURN_IF_ERROR(CheckModule(module));
    return module;
  } catch (...) {
    return StatusFromException(StatusCode::kInvalidArgument,
                               "the source does not compile");
  }
}

// ---- archives ------------------------------------------------------------

Result<jit::Module> ReadArchive(ByteSpan archive) {
  SELVAGE_RETURN_IF_ERROR(CheckArchive(archive));
  try {
    const jit::Module module =
        jit::load(std::make_shared<SpanAdapter>(archive), torch::kCPU);
    SELVAGE_RETURN_IF_ERROR(CheckModule(module));
    return module;
  } catch (...) {
    return StatusFromException(StatusCode::kInvalidArgument,
                               "cannot load the archive");
  }
}

Status CheckDigest(const plan::Program& program, ByteSpan archive) {
  if (archive.size() != program.archive_size_bytes) {
    return DataLoss("the archive has " + std::to_string(archive.size()) +
                    " bytes, not " +
                    std::to_string(program.archive_size_bytes));
  }
  const crypto::Digest digest = crypto::Sha256(archive);
  if (digest != program.archive_digest) {
    return DataLoss("the archive's digest is " + digest.ToHex() + ", not " +
                    program.archive_digest.ToHex());
  }
  return OkStatus();
}

// ---- any module ----------------------------------------------------------

std::vector<NamedTensor> TensorsOf(const jit::Module& root) {
  std::vector<NamedTensor> out;
  for (const auto& named : root.named_modules()) {
    const auto type = named.value.type();
    for (size_t i = 0; i < type->numAttributes(); ++i) {
      const c10::IValue& value = named.value._ivalue()->getSlot(i);
      if (!value.isTensor()) continue;
      const std::string& leaf = type->getAttributeName(i);
      out.push_back(
          {.name = named.name.empty() ? leaf : named.name + "." + leaf,
           .tensor = value.toTensor(),
           .is_buffer = !type->is_parameter(i)});
    }
  }
  return out;
}

// Tensors of its own, contiguous and zero: what an archive brings may be views
// or read-only. REQUIRES: BindTensors() passed, so no two are one.
void ReplaceTensors(const jit::Module& root) {
  for (const auto& named : root.named_modules()) {
    const auto type = named.value.type();
    for (size_t i = 0; i < type->numAttributes(); ++i) {
      const c10::IValue& value = named.value._ivalue()->getSlot(i);
      if (!value.isTensor()) continue;
      const at::Tensor& tensor = value.toTensor();
      named.value._ivalue()->setSlot(
          i, torch::zeros(tensor.sizes(), tensor.scalar_type()));
    }
  }
}

class TorchScriptComputation final : public Computation {
 public:
  static Result<std::unique_ptr<Computation>> Create(jit::Module module,
                                                     size_t inputs) {
    SELVAGE_ASSIGN_OR_RETURN(const PreparedMethod forward,
                             PrepareMethod(module, "forward", 1));
    SELVAGE_ASSIGN_OR_RETURN(const PreparedMethod training_loss,
                             PrepareMethod(module, "training_loss", inputs));
    SELVAGE_ASSIGN_OR_RETURN(const PreparedMethod example_scores,
                             PrepareMethod(module, "example_scores", inputs));
    try {
      return std::unique_ptr<Computation>(new TorchScriptComputation(
          std::move(module), forward, training_loss, example_scores));
    } catch (...) {
      return StatusFromException(StatusCode::kInvalidArgument,
                                 "cannot prepare the program");
    }
  }

  std::vector<NamedTensor> Tensors() const override {
    std::vector<NamedTensor> out = TensorsOf(module_);
    for (NamedTensor& named : out) {
      named.is_buffer = named.is_buffer || written_.contains(named.name);
    }
    return out;
  }
  void SetTraining(bool on) override {
    for (const jit::Module& module : module_.modules()) {
      if (const auto slot = module.type()->findAttributeSlot("training")) {
        module._ivalue()->setSlot(*slot, on);
      }
    }
  }
  at::Tensor Forward(const at::Tensor& x) override {
    return Run(forward_, {x});
  }
  at::Tensor TrainingLoss(const std::vector<at::Tensor>& inputs) override {
    return Run(training_loss_, inputs);
  }
  at::Tensor ExampleScores(const std::vector<at::Tensor>& inputs) override {
    return Run(example_scores_, inputs);
  }
  bool uses_randomness() const override { return uses_randomness_; }

 private:
  TorchScriptComputation(jit::Module module, const PreparedMethod& forward,
                         const PreparedMethod& training_loss,
                         const PreparedMethod& example_scores)
      : module_(std::move(module)),
        forward_(forward.graph, "forward"),
        training_loss_(training_loss.graph, "training_loss"),
        example_scores_(example_scores.graph, "example_scores"),
        uses_randomness_(forward.uses_randomness ||
                         training_loss.uses_randomness ||
                         example_scores.uses_randomness) {
    for (const PreparedMethod* method :
         {&forward, &training_loss, &example_scores}) {
      written_.insert(method->written.begin(), method->written.end());
    }
  }

  // The interpreter without the profiling executor around it: that one would
  // compile each method twice more while a model of this size trains, and its
  // bits may change between the first and the third call.
  at::Tensor Run(const jit::Code& code, const std::vector<at::Tensor>& inputs) {
    jit::Stack stack;
    stack.reserve(inputs.size() + 1);
    stack.emplace_back(module_._ivalue());
    for (const at::Tensor& input : inputs) stack.emplace_back(input);
    jit::InterpreterState(code).run(stack);
    return stack.at(0).toTensor();
  }

  const jit::Module module_;
  const jit::Code forward_;
  const jit::Code training_loss_;
  const jit::Code example_scores_;
  const bool uses_randomness_;
  std::set<std::string> written_;
};

class NativeComputation final : public Computation {
 public:
  explicit NativeComputation(std::shared_ptr<NativeArchitecture> architecture)
      : architecture_(std::move(architecture)) {}

  std::vector<NamedTensor> Tensors() const override {
    std::vector<NamedTensor> out;
    for (const auto& item : architecture_->named_parameters()) {
      out.push_back({.name = item.key(), .tensor = item.value()});
    }
    for (const auto& item : architecture_->named_buffers()) {
      out.push_back(
          {.name = item.key(), .tensor = item.value(), .is_buffer = true});
    }
    return out;
  }
  void SetTraining(bool on) override { architecture_->train(on); }
  at::Tensor Forward(const at::Tensor& x) override {
    return architecture_->Forward(x);
  }
  at::Tensor TrainingLoss(const std::vector<at::Tensor>& inputs) override {
    return architecture_->TrainingLoss(inputs);
  }
  at::Tensor ExampleScores(const std::vector<at::Tensor>& inputs) override {
    return architecture_->ExampleScores(inputs);
  }
  bool uses_randomness() const override {
    return architecture_->UsesRandomness();
  }

 private:
  const std::shared_ptr<NativeArchitecture> architecture_;
};

}  // namespace

Result<std::unique_ptr<Computation>> LoadTorchScript(
    const plan::Program& program, ByteSpan archive) {
  if (program.kind == plan::ProgramKind::kSource) {
    SELVAGE_ASSIGN_OR_RETURN(jit::Module module, CompileSource(program));
    return TorchScriptComputation::Create(std::move(module),
                                          program.inputs.size());
  }
  SELVAGE_RETURN_IF_ERROR(CheckDigest(program, archive));
  SELVAGE_ASSIGN_OR_RETURN(jit::Module module, ReadArchive(archive));
  SELVAGE_RETURN_IF_ERROR(
      BindTensors(program.table, TensorsOf(module)).status());
  ReplaceTensors(module);
  return TorchScriptComputation::Create(std::move(module),
                                        program.inputs.size());
}

std::unique_ptr<Computation> WrapNative(
    std::shared_ptr<NativeArchitecture> architecture) {
  return std::make_unique<NativeComputation>(std::move(architecture));
}

Result<std::vector<NamedTensor>> BindTensors(
    const plan::TensorTable& table, const std::vector<NamedTensor>& tensors) {
  std::map<std::string_view, const NamedTensor*> by_name;
  for (const NamedTensor& named : tensors) {
    if (table.Find(named.name) == nullptr) {
      return InvalidArgument("the program's tensor " + named.name +
                             " is not in the table");
    }
    by_name[named.name] = &named;
  }
  std::vector<NamedTensor> out;
  std::set<const void*> storages;
  for (const auto& entry : table.entries()) {
    const plan::TensorSpec& spec = entry.spec;
    const auto found = by_name.find(spec.name);
    if (found == by_name.end()) {
      return InvalidArgument("the program has no tensor " + spec.name);
    }
    const at::Tensor& tensor = found->second->tensor;
    if (!tensor.defined() || !tensor.device().is_cpu() ||
        tensor.layout() != c10::kStrided || tensor.is_quantized()) {
      return InvalidArgument("tensor " + spec.name +
                             " is not a plain tensor in memory");
    }
    if (tensor.sizes() != c10::IntArrayRef(spec.shape) ||
        tensor.scalar_type() != ScalarTypeOf(spec.dtype)) {
      return InvalidArgument("tensor " + spec.name + " is " +
                             c10::toString(tensor.scalar_type()) + " " +
                             Shape(tensor.sizes()) + " in the program, " +
                             std::string(plan::DTypeName(spec.dtype)) + " " +
                             Shape(spec.shape) + " in the table");
    }
    const bool is_buffer = found->second->is_buffer;
    if (is_buffer && spec.role == plan::Role::kShared) {
      return InvalidArgument("tensor " + spec.name +
                             " is a buffer or written in place; its role must "
                             "be buffer_float, personal or frozen, not shared");
    }
    if (!is_buffer && IsBufferRole(spec.role)) {
      return InvalidArgument("tensor " + spec.name +
                             " is a parameter; its role must not be " +
                             std::string(plan::RoleName(spec.role)));
    }
    if (!storages.insert(tensor.storage().unsafeGetStorageImpl()).second) {
      return InvalidArgument("tensor " + spec.name +
                             " shares its memory with another");
    }
    out.push_back(*found->second);
  }
  return out;
}

void CopyIn(const plan::TensorTable& table, std::span<const float> floats,
            std::span<const int64_t> ints,
            const std::vector<NamedTensor>& tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& entry = table.entries()[i];
    void* const to = tensors[i].tensor.data_ptr();
    if (entry.spec.dtype == plan::DType::kFloat32) {
      std::memcpy(to, floats.data() + entry.offset,
                  entry.count * sizeof(float));
    } else {
      std::memcpy(to, ints.data() + entry.offset,
                  entry.count * sizeof(int64_t));
    }
  }
}

void CopyIn(const plan::TensorTable& table, const plan::Checkpoint& values,
            const std::vector<NamedTensor>& tensors) {
  CopyIn(table, values.floats, values.ints, tensors);
}

void CopyOut(const plan::TensorTable& table,
             const std::vector<NamedTensor>& tensors, std::span<float> floats,
             std::span<int64_t> ints) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& entry = table.entries()[i];
    const void* const from = tensors[i].tensor.data_ptr();
    if (entry.spec.dtype == plan::DType::kFloat32) {
      std::memcpy(floats.data() + entry.offset, from,
                  entry.count * sizeof(float));
    } else {
      std::memcpy(ints.data() + entry.offset, from,
                  entry.count * sizeof(int64_t));
    }
  }
}

plan::Checkpoint CopyOut(const plan::TensorTable& table,
                         const std::vector<NamedTensor>& tensors) {
  plan::Checkpoint out;
  out.floats.resize(table.float_count());
  out.ints.resize(table.int_count());
  CopyOut(table, tensors, out.floats, out.ints);
  return out;
}

Result<plan::TensorTable> TableOf(const std::vector<NamedTensor>& tensors) {
  std::vector<plan::TensorSpec> specs;
  for (const NamedTensor& named : tensors) {
    plan::TensorSpec spec{.name = named.name,
                          .shape = named.tensor.sizes().vec()};
    if (named.tensor.scalar_type() == torch::kInt64) {
      spec.dtype = plan::DType::kInt64;
      spec.role = plan::Role::kBufferInt;
    } else if (named.tensor.scalar_type() == torch::kFloat32) {
      spec.role =
          named.is_buffer ? plan::Role::kBufferFloat : plan::Role::kShared;
    } else {
      return InvalidArgument("tensor " + named.name + " is " +
                             c10::toString(named.tensor.scalar_type()) +
                             "; tensors are float32 or int64");
    }
    specs.push_back(std::move(spec));
  }
  return plan::TensorTable::Create(std::move(specs));
}

}  // namespace torch_engine

namespace {

namespace engine = torch_engine;

Result<torch::jit::Module> ReadModule(const plan::Program& program,
                                      ByteSpan archive) {
  SELVAGE_RETURN_IF_ERROR(program.Validate());
  switch (program.kind) {
    case plan::ProgramKind::kSource:
      return engine::CompileSource(program);
    case plan::ProgramKind::kArchive:
      SELVAGE_RETURN_IF_ERROR(engine::CheckDigest(program, archive));
      return engine::ReadArchive(archive);
    case plan::ProgramKind::kNative:
      break;
  }
  return FailedPrecondition("native:" + program.native_name +
                            " is C++ and has no TorchScript form");
}

}  // namespace

Result<Bytes> ExportTorchScript(const plan::Program& program,
                                const plan::Checkpoint& values,
                                ByteSpan archive) {
  SELVAGE_ASSIGN_OR_RETURN(torch::jit::Module module,
                           ReadModule(program, archive));
  SELVAGE_RETURN_IF_ERROR(plan::ValidateCheckpoint(program.table, values));
  SELVAGE_RETURN_IF_ERROR(
      engine::BindTensors(program.table, engine::TensorsOf(module)).status());
  try {
    engine::ReplaceTensors(module);
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<engine::NamedTensor> tensors,
        engine::BindTensors(program.table, engine::TensorsOf(module)));
    engine::CopyIn(program.table, values, tensors);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const plan::Role role = program.table.entries()[i].spec.role;
      if (role == plan::Role::kShared || role == plan::Role::kPersonal) {
        at::Tensor(tensors[i].tensor).set_requires_grad(true);
      }
    }
    module.train(false);
    std::ostringstream out;
    module.save(out);
    return ToBytes(out.str());
  } catch (...) {
    return engine::StatusFromException(StatusCode::kInternal,
                                       "cannot save the model");
  }
}

Result<std::vector<std::string>> ListOperators(const plan::Program& program,
                                               ByteSpan archive) {
  SELVAGE_ASSIGN_OR_RETURN(const torch::jit::Module module,
                           ReadModule(program, archive));
  try {
    const std::set<std::string> names = engine::OperatorsOf(module);
    return std::vector<std::string>(names.begin(), names.end());
  } catch (...) {
    return engine::StatusFromException(StatusCode::kInternal,
                                       "cannot list the operators");
  }
}

Result<ArchiveContents> InspectArchive(ByteSpan archive) {
  SELVAGE_ASSIGN_OR_RETURN(const torch::jit::Module module,
                           engine::ReadArchive(archive));
  try {
    std::vector<engine::NamedTensor> tensors = engine::TensorsOf(module);
    ArchiveContents out;
    SELVAGE_ASSIGN_OR_RETURN(out.table, engine::TableOf(tensors));
    SELVAGE_ASSIGN_OR_RETURN(std::vector<engine::NamedTensor> bound,
                             engine::BindTensors(out.table, tensors));
    for (auto& named : bound) named.tensor = named.tensor.contiguous();
    out.values = engine::CopyOut(out.table, bound);
    SELVAGE_ASSIGN_OR_RETURN(out.description,
                             engine::ReadExtraFile(archive, "selvage.yaml",
                                                   plan::kProgramFileSizeMax));
    return out;
  } catch (...) {
    return engine::StatusFromException(StatusCode::kInvalidArgument,
                                       "cannot read the archive");
  }
}

}  // namespace selvage::client
