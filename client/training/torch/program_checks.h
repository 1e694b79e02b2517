// What a program must pass before anything of it runs. Internal to the engine:
// its callers include LibTorch.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"

namespace torch::jit {
struct Graph;
struct Module;
}  // namespace torch::jit

namespace selvage::client::torch_engine {

enum class CodeForm {
  kMethods,  // a source program: nothing but `def`s of methods
  kArchive,  // code of an archive: classes and functions
};

// Text that LibTorch may compile. Compiling evaluates default arguments and
// class constants, so those must be literals; a parser that recurses needs
// expressions of bounded size.
// PERMISSION_DENIED: __setstate__ or __getstate__ (loading an archive calls
// them), or a call of an operator that is not permitted, by name.
// INVALID_ARGUMENT: does not parse, or is beyond those bounds.
Status CheckCode(std::string_view name, const std::string& text, CodeForm form);

// Everything of an archive that torch::jit::load would trust: directory,
// pickles, code. Runs nothing.
Status CheckArchive(ByteSpan archive);

// The extra file `name` of an archive that passed CheckArchive(), "" if there
// is none. INVALID_ARGUMENT if it is larger than `size_max`.
Result<std::string> ReadExtraFile(ByteSpan archive, const std::string& name,
                                  size_t size_max);

// Every node of every method of every submodule, calls inlined.
// PERMISSION_DENIED names operator and method; INVALID_ARGUMENT: grows too
// large, constants of more than 1 MiB, or an attribute that could hide tensors.
Status CheckModule(const torch::jit::Module& module);

// The operators of every method, calls inlined. REQUIRES: CheckModule() passed.
std::set<std::string> OperatorsOf(const torch::jit::Module& module);

struct PreparedMethod {
  std::shared_ptr<torch::jit::Graph> graph;
  bool uses_randomness = false;
  // Tensors of the module that the method itself writes to: statistics of
  // batch_norm and instance_norm, and what in-place operators name.
  std::set<std::string> written;
};

// A copy of a method's graph to run: calls inlined, warnings removed (they
// could carry an example to a log), selvage::tick first in every loop.
// INVALID_ARGUMENT if there is no such method or it does not take `arguments`
// tensors and return one.
// REQUIRES: CheckModule(module) passed.
Result<PreparedMethod> PrepareMethod(const torch::jit::Module& module,
                                     const std::string& name, size_t arguments);

// The exception being handled, as a Status without backtraces and without the
// text of the program's own exceptions. RESOURCE_EXHAUSTED if memory ran out,
// else `otherwise`. Call from a catch block.
Status StatusFromException(StatusCode otherwise, std::string_view doing);

}  // namespace selvage::client::torch_engine
