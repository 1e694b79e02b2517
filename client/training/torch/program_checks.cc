#include "client/training/torch/program_checks.h"

#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <map>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/frontend/error_report.h>
#include <torch/csrc/jit/frontend/lexer.h>
#include <torch/csrc/jit/frontend/parser.h>
#include <torch/csrc/jit/frontend/tree_views.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/jit_exception.h>
#include <torch/csrc/jit/runtime/operator.h>

#include "client/training/torch/archive_scan.h"
#include "client/training/torch/operator_allow_list.h"
#include "client/training/torch/pickle_scan.h"
#include "client/training/torch/span_adapter.h"
#include "client/training/torch/step_deadline.h"

namespace selvage::client::torch_engine {
namespace {

namespace jit = torch::jit;

// ---- text ----------------------------------------------------------------

constexpr int kBracketDepthMax = 64;
constexpr int kIndentMax = 64;
constexpr int kStatementTokensMax = 4000;
constexpr int kElifMax = 500;
constexpr uint64_t kCodeSizeMax = 16 << 20;

Status CheckTokens(std::string_view name,
                   const std::shared_ptr<jit::Source>& source) {
  jit::Lexer lexer(source);
  int brackets = 0;
  int indent = 0;
  int tokens = 0;
  int elifs = 0;
  for (; lexer.cur().kind != jit::TK_EOF; lexer.next()) {
    ++tokens;
    switch (lexer.cur().kind) {
      case '(':
      case '[':
      case '{':
        ++brackets;
        break;
      case ')':
      case ']':
      case '}':
        --brackets;
        break;
      case jit::TK_INDENT:
        ++indent;
        tokens = 0;
        break;
      case jit::TK_DEDENT:
        --indent;
        tokens = 0;
        break;
      case jit::TK_NEWLINE:
        tokens = 0;
        break;
      case jit::TK_ELIF:
        ++elifs;
        break;
      default:
        break;
    }
    if (brackets > kBracketDepthMax || indent > kIndentMax ||
        tokens > kStatementTokensMax || elifs > kElifMax) {
      return InvalidArgument(
          std::string(name) + " line " +
          std::to_string(source->lineno_for_offset(lexer.cur().range.start()) +
                         1) +
          ": too deep or too long; at most 64 open brackets, 64 levels of "
          "indentation, 4000 tokens in a statement, 500 elif");
    }
  }
  return OkStatus();
}

std::string Line(std::string_view name, const jit::TreeRef& tree) {
  std::string out(name);
  if (const auto place = tree->range().file_line_col(); place.has_value()) {
    out += " line " + std::to_string(std::get<1>(*place));
  }
  return out;
}

// Evaluating it runs no operator.
bool IsLiteral(const jit::TreeRef& root) {
  static const std::set<int> kKinds = {
      jit::TK_CONST,         jit::TK_STRINGLITERAL, jit::TK_TRUE,
      jit::TK_FALSE,         jit::TK_NONE,          jit::TK_LIST_LITERAL,
      jit::TK_TUPLE_LITERAL, jit::TK_DICT_LITERAL,  jit::TK_LIST,
      jit::TK_UNARY_MINUS,   jit::TK_VAR,           jit::TK_IDENT,
      jit::TK_STRING,        jit::TK_OPTION,        jit::TK_SUBSCRIPT,
      jit::TK_NOTHING,       jit::TK_NONE_TYPE,     '.'};
  std::vector<jit::TreeRef> pending = {root};
  while (!pending.empty()) {
    const jit::TreeRef tree = pending.back();
    pending.pop_back();
    // annotate(List[int], []) is how an empty list is printed.
    const bool annotation = tree->kind() == jit::TK_APPLY &&
                            tree->tree(0)->kind() == jit::TK_VAR &&
                            jit::Var(tree->tree(0)).name().name() == "annotate";
    if (!annotation && !kKinds.contains(tree->kind())) return false;
    for (const jit::TreeRef& child : tree->trees()) pending.push_back(child);
  }
  return true;
}

// "aten::relu" for torch.relu, "ns::name" for ops.ns.name, else "".
std::string CalledOperator(const jit::TreeRef& callee) {
  if (callee->kind() != '.') return "";
  const jit::Select select(callee);
  const std::string& name = select.selector().name();
  const jit::TreeRef value = select.value().tree();
  if (value->kind() == jit::TK_VAR) {
    return jit::Var(value).name().name() == "torch" ? "aten::" + name : "";
  }
  if (value->kind() != '.') return "";
  const jit::Select inner(value);
  if (inner.value().tree()->kind() != jit::TK_VAR) return "";
  return jit::Var(inner.value().tree()).name().name() == "ops"
             ? inner.selector().name() + "::" + name
             : "";
}

// A name that is no operator at all is left to the compiler's better message.
bool IsForbiddenCall(const std::string& operator_name) {
  if (operator_name.empty() || IsOperatorAllowed(operator_name, "")) {
    return false;
  }
  const std::string prim =
      "prim::" + operator_name.substr(operator_name.find("::") + 2);
  if (operator_name.starts_with("aten::") &&
      (IsOperatorAllowed(prim, "") || operator_name == "aten::warn")) {
    return false;
  }
  return !operator_name.starts_with("aten::") ||
         !jit::getAllOperatorsFor(c10::Symbol::fromQualString(operator_name))
              .empty();
}

// Walks one top-level definition. A stack of its own: text may be deep.
Status CheckDefinition(std::string_view name, const jit::TreeRef& root) {
  struct Pending {
    jit::TreeRef tree;
    std::string method;
  };
  std::vector<Pending> pending = {{root, ""}};
  while (!pending.empty()) {
    auto [tree, method] = std::move(pending.back());
    pending.pop_back();
    switch (tree->kind()) {
      case jit::TK_DEF:
        method = jit::Def(tree).name().name();
        if (method == "__setstate__" || method == "__getstate__") {
          return PermissionDenied(Line(name, tree) + ": " + method +
                                  " is not permitted; loading would run it");
        }
        break;
      case jit::TK_PARAM:
        if (const auto value = jit::Param(tree).defaultValue();
            value.present() && !IsLiteral(value.get().tree())) {
          return PermissionDenied(Line(name, tree) +
                                  ": the default of an argument of " + method +
                                  " is not a literal; compiling would run it");
        }
        break;
      case jit::TK_CLASS_DEF:
        for (const jit::Stmt& statement : jit::ClassDef(tree).body()) {
          if (statement.kind() != jit::TK_ASSIGN) continue;
          const auto value = jit::Assign(statement.tree()).rhs();
          if (value.present() && !IsLiteral(value.get().tree())) {
            return PermissionDenied(
                Line(name, statement.tree()) +
                ": a class constant is not a literal; loading would run it");
          }
        }
        break;
      case jit::TK_APPLY:
        if (const std::string called = CalledOperator(tree->tree(0));
            IsForbiddenCall(called)) {
          return PermissionDenied(Line(name, tree) + ": operator " + called +
                                  " in " + method + " is not permitted");
        }
        break;
      default:
        break;
    }
    for (const jit::TreeRef& child : tree->trees()) {
      pending.push_back({child, method});
    }
  }
  return OkStatus();
}

// ---- graphs --------------------------------------------------------------

constexpr size_t kNodesMax = 200'000;
constexpr size_t kConstantBytesMax = 1 << 20;

template <typename Visit>
void ForEachNode(jit::Block* root, const Visit& visit) {
  std::vector<jit::Block*> blocks = {root};
  while (!blocks.empty()) {
    jit::Block* block = blocks.back();
    blocks.pop_back();
    for (jit::Node* node : block->nodes()) {
      visit(node);
      for (jit::Block* inner : node->blocks()) blocks.push_back(inner);
    }
  }
}

// The function that Inline() would put in the place of `node`; nullptr if it is
// no call.
jit::Function* Callee(jit::Node* node) {
  if (node->kind() == c10::prim::CallMethod) {
    const auto type = node->input(0)->type()->cast<c10::ClassType>();
    return type == nullptr ? nullptr
                           : type->findMethod(node->s(c10::attr::name));
  }
  if (node->kind() == c10::prim::CallFunction) {
    const auto type = node->input(0)->type()->cast<c10::FunctionType>();
    return type == nullptr ? nullptr : type->function();
  }
  return nullptr;
}

std::shared_ptr<jit::Graph> GraphOf(jit::Function& function) {
  function.ensure_defined();
  return jit::toGraphFunction(function).graph();
}

// Nodes after inlining. A handful of methods that call each other twice would
// double at every level, so this is counted before it is done. kNodesMax + 1
// stands for "more".
class InlinedSize {
 public:
  size_t Of(jit::Function& function) {
    if (const auto found = sizes_.find(&function); found != sizes_.end()) {
      return found->second;
    }
    sizes_[&function] = kNodesMax + 1;  // what a function that calls itself has
    size_t total = 0;
    ForEachNode(GraphOf(function)->block(), [&](jit::Node* node) {
      jit::Function* callee = Callee(node);
      total = std::min(total + (callee != nullptr ? Of(*callee) : 1),
                       kNodesMax + 1);
    });
    sizes_[&function] = total;
    return total;
  }

 private:
  std::map<jit::Function*, size_t> sizes_;
};

std::string MethodName(const std::string& module, const std::string& method) {
  return module.empty() ? method : module + "." + method;
}

std::string WhyRefused(jit::Node* node) {
  const std::string name = node->kind().toQualString();
  if (name == "aten::warn") return "";  // PrepareMethod() removes it
  if (name == "prim::SetAttr") {
    return "assigning to attribute " + node->s(c10::attr::name) +
           " is not permitted; write in place with copy_()";
  }
  const c10::FunctionSchema* schema = node->maybeSchema();
  const std::string overload = schema != nullptr ? schema->overload_name() : "";
  const bool writes_out =
      schema != nullptr &&
      std::any_of(schema->arguments().begin(), schema->arguments().end(),
                  [](const c10::Argument& a) { return a.is_out(); });
  if (writes_out) {
    return "operator " + name + "." + overload + " (writing to out=)" +
           " is not permitted";
  }
  if (!IsOperatorAllowed(name, overload)) {
    return "operator " + name + (overload.empty() ? "" : "." + overload) +
           " is not permitted";
  }
  return "";
}

size_t ConstantBytes(jit::Node* node) {
  if (node->kind() != c10::prim::Constant ||
      !node->hasAttribute(c10::attr::value) ||
      node->kindOf(c10::attr::value) != jit::AttributeKind::t) {
    return 0;
  }
  return node->t(c10::attr::value).nbytes();
}

Status CheckMethod(jit::Function& function, const std::string& name,
                   InlinedSize& sizes) {
  if (sizes.Of(function) > kNodesMax) {
    return InvalidArgument("method " + name + " grows to more than " +
                           std::to_string(kNodesMax) +
                           " operators once its calls are inlined, or calls "
                           "itself");
  }
  const std::shared_ptr<jit::Graph> graph = GraphOf(function)->copy();
  jit::Inline(*graph);
  std::string refused;
  size_t constants = 0;
  ForEachNode(graph->block(), [&](jit::Node* node) {
    if (refused.empty()) refused = WhyRefused(node);
    constants += ConstantBytes(node);
  });
  if (!refused.empty()) return PermissionDenied(refused + ": method " + name);
  if (constants > kConstantBytesMax) {
    return InvalidArgument("method " + name + " has constants of " +
                           std::to_string(constants) +
                           " bytes, over 1 MiB; make them buffers");
  }
  return OkStatus();
}

bool IsTensor(const c10::TypePtr& type) {
  const auto optional = type->cast<c10::OptionalType>();
  return (optional == nullptr ? type : optional->getElementType())->kind() ==
         c10::TypeKind::TensorType;
}

// Attributes that hold no tensor: those are in the table or nowhere.
bool IsPlain(const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::StringType:
    case c10::TypeKind::NoneType:
    case c10::TypeKind::DeviceObjType:
      return true;
    case c10::TypeKind::OptionalType:
    case c10::TypeKind::ListType:
    case c10::TypeKind::TupleType:
    case c10::TypeKind::DictType:
      return std::all_of(type->containedTypes().begin(),
                         type->containedTypes().end(), IsPlain);
    default:
      return false;
  }
}

Status CheckAttributes(const c10::ClassType& type, const std::string& module) {
  if (!type.getForwardHooks().empty() || !type.getForwardPreHooks().empty()) {
    return InvalidArgument("module " + module + " has forward hooks");
  }
  for (size_t i = 0; i < type.numAttributes(); ++i) {
    const c10::TypePtr& attribute = type.getAttribute(i);
    if (IsTensor(attribute) || attribute->is_module() || IsPlain(attribute)) {
      continue;
    }
    return InvalidArgument(
        "attribute " + MethodName(module, type.getAttributeName(i)) + " is a " +
        attribute->repr_str() + "; tensors must be parameters or buffers");
  }
  return OkStatus();
}

// The files of an archive may make a module its own child.
Status CheckTree(const torch::jit::Module& root) {
  constexpr size_t kModulesMax = 10'000;
  constexpr size_t kDepthMax = 100;
  struct Pending {
    torch::jit::Module module;
    size_t depth;
  };
  std::vector<Pending> pending = {{root, 0}};
  for (size_t seen = 0; !pending.empty(); ++seen) {
    const Pending current = pending.back();
    pending.pop_back();
    if (seen > kModulesMax || current.depth > kDepthMax) {
      return InvalidArgument(
          "the program has more than 10000 submodules or nests them more than "
          "100 deep");
    }
    for (const auto& child : current.module.children()) {
      pending.push_back({child, current.depth + 1});
    }
  }
  return OkStatus();
}

// "norm.running_mean" if `value` is that attribute of the method's module, ""
// if it is something else.
std::string AttributePath(const jit::Value* value) {
  std::string path;
  for (const jit::Node* node = value->node();; node = value->node()) {
    if (node->kind() == c10::prim::GetAttr) {
      const std::string& name = node->s(c10::attr::name);
      path = path.empty() ? name : name + "." + path;
    } else if (node->kind() != c10::prim::unchecked_cast &&
               node->kind() != c10::prim::unchecked_unwrap_optional) {
      return node->kind() == c10::prim::Param ? path : "";
    }
    value = node->input(0);
  }
}

void CollectWritten(const jit::Node* node, std::set<std::string>& written) {
  const std::string name = node->kind().toQualString();
  const auto add = [&](size_t input) {
    if (node->inputs().size() <= input) return;
    const std::string path = AttributePath(node->input(input));
    if (!path.empty()) written.insert(path);
  };
  if (name == "aten::batch_norm" || name == "aten::instance_norm") {
    add(3);
    add(4);
  } else if (name.starts_with("aten::") && name.ends_with("_") &&
             !name.ends_with("__")) {
    add(0);
  }
}

void RegisterTick() {
  // LibTorch's operators are one table per process.
  static const bool registered = [] {
    jit::registerOperator(jit::Operator(
        "selvage::tick() -> ()", [](jit::Stack&) { CheckStepDeadline(); },
        c10::AliasAnalysisKind::CONSERVATIVE));
    return true;
  }();
  static_cast<void>(registered);
}

Status CheckSignature(const c10::FunctionSchema& schema,
                      const std::string& name, size_t arguments) {
  const auto& all = schema.arguments();
  bool fits = all.size() > arguments && schema.returns().size() == 1 &&
              schema.returns()[0].type()->kind() == c10::TypeKind::TensorType;
  for (size_t i = 1; i < all.size() && fits; ++i) {
    fits = i <= arguments ? all[i].type()->kind() == c10::TypeKind::TensorType
                          : all[i].default_value().has_value();
  }
  if (fits && all.size() == arguments + 1) return OkStatus();
  return InvalidArgument(
      "method " + name + " must take " + std::to_string(arguments) +
      (arguments == 1 ? " tensor" : " tensors") + " and return one tensor");
}

// ---- words ---------------------------------------------------------------

std::string FirstLine(std::string text) {
  while (!text.empty() && (text.front() == '\n' || text.front() == ' ')) {
    text.erase(0, 1);
  }
  text = text.substr(0, text.find('\n'));
  while (!text.empty() && (text.back() == '.' || text.back() == ':')) {
    text.pop_back();
  }
  constexpr size_t kSizeMax = 300;
  if (text.size() > kSizeMax) text = text.substr(0, kSizeMax) + " ...";
  return text;
}

// "Unknown builtin op: aten::foo (line 3)" from what LibTorch says of source.
std::string CompileMessage(const std::string& text) {
  std::string out = FirstLine(text);
  const size_t at = text.find(", line ");
  if (at != std::string::npos) {
    size_t end = at + 7;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    out += " (" + text.substr(at + 2, end - at - 2) + ")";
  }
  return out;
}

}  // namespace

Status StatusFromException(StatusCode otherwise, std::string_view doing) {
  std::string text;
  const std::string prefix = std::string(doing) + ": ";
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(prefix + "out of memory");
  } catch (const jit::JITException& e) {
    // The words of a program's exception may hold an example.
    return Status(otherwise, prefix + "the program raised an exception");
  } catch (const jit::ErrorReport& e) {
    return Status(otherwise, prefix + CompileMessage(e.what()));
  } catch (const c10::Error& e) {
    text = e.what_without_backtrace();
  } catch (const std::exception& e) {
    text = e.what();
  } catch (...) {
    return Status(otherwise, prefix + "an exception of an unknown type");
  }
  if (text.find("can't allocate memory") != std::string::npos ||
      text.find("not enough memory") != std::string::npos) {
    return ResourceExhausted(prefix + "out of memory");
  }
  // The interpreter puts its own traceback before the reason.
  if (const size_t at = text.rfind("RuntimeError: "); at != std::string::npos) {
    text = text.substr(at + 14);
  }
  return Status(otherwise, prefix + CompileMessage(text));
}

Status CheckCode(std::string_view name, const std::string& text,
                 CodeForm form) {
  try {
    const auto source =
        std::make_shared<jit::Source>(text, std::string(name), 1);
    SELVAGE_RETURN_IF_ERROR(CheckTokens(name, source));
    jit::Parser parser(source);
    while (parser.lexer().cur().kind != jit::TK_EOF) {
      const int kind = parser.lexer().cur().kind;
      jit::TreeRef definition;
      if (kind == jit::TK_DEF) {
        definition = parser.parseFunction(form == CodeForm::kMethods);
      } else if (kind == jit::TK_CLASS_DEF && form == CodeForm::kArchive) {
        definition = parser.parseClass();
      } else {
        return InvalidArgument(std::string(name) + ": expected " +
                               (form == CodeForm::kMethods
                                    ? "nothing but methods (def)"
                                    : "nothing but classes and functions") +
                               ", found " + jit::kindToString(kind));
      }
      SELVAGE_RETURN_IF_ERROR(CheckDefinition(name, definition));
    }
    return OkStatus();
  } catch (...) {
    return StatusFromException(StatusCode::kInvalidArgument, name);
  }
}

Status CheckArchive(ByteSpan archive) {
  SELVAGE_ASSIGN_OR_RETURN(const auto records, ReadArchiveDirectory(archive));
  try {
    caffe2::serialize::PyTorchStreamReader reader(
        std::make_shared<SpanAdapter>(archive));
    const auto read = [&](const std::string& name) -> Result<std::string> {
      const uint64_t size_bytes = records.at(name).size_bytes;
      if (size_bytes > kCodeSizeMax) {
        return InvalidArgument("the archive's record " + name + " has " +
                               std::to_string(size_bytes) +
                               " bytes, over 16 MiB");
      }
      const auto [data, size] = reader.getRecord(name);
      return std::string(static_cast<const char*>(data.get()), size);
    };
    const auto storage_size_in = [&](const std::string& folder) {
      return
          [&records, folder](std::string_view key) -> std::optional<uint64_t> {
            const auto found = records.find(folder + std::string(key));
            if (found == records.end()) return std::nullopt;
            return found->second.size_bytes;
          };
    };
    for (const std::string name : {"data.pkl", "constants.pkl", "version"}) {
      if (!records.contains(name)) {
        return InvalidArgument("the archive has no " + name);
      }
    }
    for (const std::string folder : {"data", "constants"}) {
      SELVAGE_ASSIGN_OR_RETURN(const std::string pickle, read(folder + ".pkl"));
      SELVAGE_RETURN_IF_ERROR(ScanPickle(folder + ".pkl", AsBytes(pickle),
                                         storage_size_in(folder + "/")));
    }
    for (const auto& [name, record] : records) {
      if (!name.starts_with("code/")) continue;
      SELVAGE_ASSIGN_OR_RETURN(const std::string text, read(name));
      if (name.ends_with(".debug_pkl")) {
        SELVAGE_RETURN_IF_ERROR(
            ScanPickle(name, AsBytes(text),
                       [](std::string_view) { return std::nullopt; }));
      } else if (name.ends_with(".py")) {
        SELVAGE_RETURN_IF_ERROR(CheckCode(name, text, CodeForm::kArchive));
      } else {
        return InvalidArgument("the archive has " + name +
                               ", which is neither code nor its positions");
      }
    }
    return OkStatus();
  } catch (...) {
    return StatusFromException(StatusCode::kInvalidArgument,
                               "cannot read the archive");
  }
}

Result<std::string> ReadExtraFile(ByteSpan archive, const std::string& name,
                                  size_t size_max) {
  SELVAGE_ASSIGN_OR_RETURN(const auto records, ReadArchiveDirectory(archive));
  const auto found = records.find("extra/" + name);
  if (found == records.end()) return std::string();
  if (found->second.size_bytes > size_max) {
    return InvalidArgument("the archive's " + name + " has " +
                           std::to_string(found->second.size_bytes) +
                           " bytes, over " + std::to_string(size_max));
  }
  try {
    caffe2::serialize::PyTorchStreamReader reader(
        std::make_shared<SpanAdapter>(archive));
    const auto [data, size] = reader.getRecord("extra/" + name);
    return std::string(static_cast<const char*>(data.get()), size);
  } catch (...) {
    return StatusFromException(StatusCode::kInvalidArgument,
                               "cannot read the archive's " + name);
  }
}

std::set<std::string> OperatorsOf(const torch::jit::Module& module) {
  std::set<std::string> out;
  for (const auto& named : module.named_modules()) {
    for (jit::Function* method : named.value.type()->methods()) {
      const std::shared_ptr<jit::Graph> graph = GraphOf(*method)->copy();
      jit::Inline(*graph);
      ForEachNode(graph->block(), [&](const jit::Node* node) {
        out.insert(node->kind().toQualString());
      });
    }
  }
  return out;
}

Status CheckModule(const torch::jit::Module& module) {
  try {
    SELVAGE_RETURN_IF_ERROR(CheckTree(module));
    InlinedSize sizes;
    for (const auto& named : module.named_modules()) {
      const auto type = named.value.type();
      SELVAGE_RETURN_IF_ERROR(CheckAttributes(*type, named.name));
      for (jit::Function* method : type->methods()) {
        SELVAGE_RETURN_IF_ERROR(CheckMethod(
            *method, MethodName(named.name, method->name()), sizes));
      }
    }
    return OkStatus();
  } catch (...) {
    return StatusFromException(StatusCode::kInvalidArgument,
                               "cannot read the program");
  }
}

Result<PreparedMethod> PrepareMethod(const torch::jit::Module& module,
                                     const std::string& name,
                                     size_t arguments) {
  const auto method = module.find_method(name);
  if (!method.has_value()) {
    return InvalidArgument("the program has no method " + name);
  }
  SELVAGE_RETURN_IF_ERROR(
      CheckSignature(method->function().getSchema(), name, arguments));
  RegisterTick();
  try {
    PreparedMethod out;
    out.graph = GraphOf(method->function())->copy();
    jit::Inline(*out.graph);
    std::vector<jit::Node*> warnings;
    const auto tick = c10::Symbol::fromQualString("selvage::tick");
    ForEachNode(out.graph->block(), [&](jit::Node* node) {
      if (node->kind() == c10::aten::warn) warnings.push_back(node);
      if (IsOperatorRandom(node->kind().toQualString())) {
        out.uses_randomness = true;
      }
      CollectWritten(node, out.written);
      if (node->kind() != c10::prim::Loop) return;
      jit::Node* checkpoint = out.graph->create(tick, /*num_outputs=*/0);
      node->blocks()[0]->prependNode(checkpoint);
    });
    for (jit::Node* node : warnings) node->destroy();
    return out;
  } catch (...) {
    return StatusFromException(StatusCode::kInvalidArgument, name);
  }
}

}  // namespace selvage::client::torch_engine
