#include "client/training/torch/pickle_scan.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace selvage::client::torch_engine {
namespace {

constexpr int kDepthMax = 100;
constexpr int64_t kExtentMax = int64_t{1} << 40;
constexpr size_t kStringSizeMax = 1 << 20;

// What the scan needs to know about a value; everything else is kOther.
enum class Kind { kMark, kInt, kString, kGlobal, kTuple, kStorage, kOther };

struct Value {
  Kind kind = Kind::kOther;
  int depth = 0;
  int64_t number = 0;  // kInt; kStorage: elements
  std::string text{};  // kString; kGlobal: "module name"
  std::vector<std::shared_ptr<Value>> items{};  // kTuple
};
using ValuePtr = std::shared_ptr<Value>;

// 0 if `global` is not a storage this engine reads.
int64_t StorageElementSize(std::string_view global) {
  static constexpr std::pair<std::string_view, int64_t> kSizes[] = {
      {"torch FloatStorage", 4}, {"torch DoubleStorage", 8},
      {"torch HalfStorage", 2},  {"torch BFloat16Storage", 2},
      {"torch LongStorage", 8},  {"torch IntStorage", 4},
      {"torch ShortStorage", 2}, {"torch CharStorage", 1},
      {"torch ByteStorage", 1},  {"torch BoolStorage", 1},
  };
  for (const auto& [name, size] : kSizes) {
    if (name == global) return size;
  }
  return 0;
}

bool IsModuleClass(std::string_view global) {
  return global.starts_with("__torch__ ") ||
         (global.starts_with("__torch__.") &&
          !global.starts_with("__torch__.torch.classes."));
}

bool IsListBuilder(std::string_view global) {
  return global == "torch.jit._pickle build_intlist" ||
         global == "torch.jit._pickle build_tensorlist" ||
         global == "torch.jit._pickle build_doublelist" ||
         global == "torch.jit._pickle build_boollist" ||
         global == "torch.jit._pickle restore_type_tag" ||
         global == "collections OrderedDict";
}

class Scan {
 public:
  Scan(std::string_view name, ByteSpan pickle, const StorageSize& storage_size)
      : name_(name),
        size_(pickle.size()),
        reader_(pickle),
        storage_size_(storage_size) {}

  Status Run() {
    while (true) {
      SELVAGE_ASSIGN_OR_RETURN(const uint8_t op,
                               reader_.Read<uint8_t>("opcode"));
      if (op == '.') return OkStatus();
      SELVAGE_RETURN_IF_ERROR(Step(op));
    }
  }

 private:
  Status Refuse(std::string message) const {
    return InvalidArgument(std::string(name_) + " at byte " +
                           std::to_string(size_ - reader_.remaining()) + ": " +
                           std::move(message));
  }

  void Push(Value value) {
    stack_.push_back(std::make_shared<Value>(std::move(value)));
  }
  Result<ValuePtr> Pop() {
    if (stack_.empty() || stack_.back()->kind == Kind::kMark) {
      return Refuse("the stack is empty");
    }
    ValuePtr top = std::move(stack_.back());
    stack_.pop_back();
    return top;
  }
  // The values above the topmost mark, which goes too.
  Result<std::vector<ValuePtr>> PopToMark() {
    std::vector<ValuePtr> items;
    while (!stack_.empty() && stack_.back()->kind != Kind::kMark) {
      items.push_back(std::move(stack_.back()));
      stack_.pop_back();
    }
    if (stack_.empty()) return Refuse("no mark");
    stack_.pop_back();
    std::reverse(items.begin(), items.end());
    return items;
  }

  Status PushTuple(std::vector<ValuePtr> items) {
    Value tuple{.kind = Kind::kTuple};
    for (const ValuePtr& item : items) {
      tuple.depth = std::max(tuple.depth, item->depth + 1);
    }
    if (tuple.depth > kDepthMax) return Refuse("nested too deep");
    tuple.items = std::move(items);
    Push(std::move(tuple));
    return OkStatus();
  }
  Status PushTupleOf(size_t count) {
    std::vector<ValuePtr> items(count);
    for (size_t i = count; i > 0; --i) {
      SELVAGE_ASSIGN_OR_RETURN(items[i - 1], Pop());
    }
    return PushTuple(std::move(items));
  }
  // Items go into the container that is now on top.
  Status Contain(const std::vector<ValuePtr>& items) {
    if (stack_.empty() || stack_.back()->kind != Kind::kOther) {
      return Refuse("items without a container");
    }
    for (const ValuePtr& item : items) {
      stack_.back()->depth = std::max(stack_.back()->depth, item->depth + 1);
    }
    if (stack_.back()->depth > kDepthMax) return Refuse("nested too deep");
    return OkStatus();
  }

  template <typename T>
  Status PushInt() {
    SELVAGE_ASSIGN_OR_RETURN(const T number, reader_.Read<T>("integer"));
    Push({.kind = Kind::kInt, .number = static_cast<int64_t>(number)});
    return OkStatus();
  }
  Status PushLong() {
    SELVAGE_ASSIGN_OR_RETURN(const uint8_t size, reader_.Read<uint8_t>("long"));
    if (size > 8) return Refuse("an integer of more than 64 bits");
    SELVAGE_ASSIGN_OR_RETURN(const ByteSpan bytes,
                             reader_.ReadBytes(size, "long"));
    uint64_t number = 0;
    for (size_t i = 0; i < 8; ++i) {
      const bool negative = size > 0 && (bytes[size - 1] & 0x80) != 0;
      const uint64_t byte = i < size ? bytes[i] : (negative ? 0xff : 0);
      number |= byte << (8 * i);
    }
    Push({.kind = Kind::kInt, .number = static_cast<int64_t>(number)});
    return OkStatus();
  }
  Status PushText(size_t size) {
    if (size > kStringSizeMax) return Refuse("a string of over 1 MiB");
    SELVAGE_ASSIGN_OR_RETURN(const ByteSpan bytes,
                             reader_.ReadBytes(size, "string"));
    Push({.kind = Kind::kString, .text = ToString(bytes)});
    return OkStatus();
  }
  Result<std::string> ReadLine() {
    std::string line;
    while (true) {
      SELVAGE_ASSIGN_OR_RETURN(const char c, reader_.Read<char>("global"));
      if (c == '\n') return line;
      if (line.size() >= 1024) return Refuse("a global's name is too long");
      line += c;
    }
  }

  Status Global() {
    SELVAGE_ASSIGN_OR_RETURN(const std::string module, ReadLine());
    SELVAGE_ASSIGN_OR_RETURN(const std::string name, ReadLine());
    const std::string both = module + " " + name;
    const bool known = IsModuleClass(both) || IsListBuilder(both) ||
                       StorageElementSize(both) != 0 ||
                       both == "torch._utils _rebuild_tensor_v2";
    if (!known) return Refuse("global " + both + " is not permitted");
    Push({.kind = Kind::kGlobal, .text = both});
    return OkStatus();
  }

  Status NewObject() {
    SELVAGE_ASSIGN_OR_RETURN(const ValuePtr arguments, Pop());
    SELVAGE_ASSIGN_OR_RETURN(const ValuePtr callee, Pop());
    if (callee->kind != Kind::kGlobal || !IsModuleClass(callee->text) ||
        arguments->kind != Kind::kTuple || !arguments->items.empty()) {
      return Refuse("a new object that is not of a class of the archive");
    }
    Push({});
    return OkStatus();
  }

  Status Reduce() {
    SELVAGE_ASSIGN_OR_RETURN(const ValuePtr arguments, Pop());
    SELVAGE_ASSIGN_OR_RETURN(const ValuePtr callee, Pop());
    if (callee->kind != Kind::kGlobal || arguments->kind != Kind::kTuple) {
      return Refuse("a call of something that is not a global");
    }
    if (callee->text == "torch._utils _rebuild_tensor_v2") {
      SELVAGE_RETURN_IF_ERROR(CheckTensor(arguments->items));
    } else if (!IsListBuilder(callee->text)) {
      return Refuse("a call of " + callee->text);
    }
    Push({.depth = arguments->depth});
    return OkStatus();
  }

  // ("storage", torch.FloatStorage, key, device, elements)
  Status PersistentId() {
    SELVAGE_ASSIGN_OR_RETURN(const ValuePtr id, Pop());
    const auto& items = id->items;
    if (id->kind != Kind::kTuple || items.size() != 5 ||
        items[0]->kind != Kind::kString || items[0]->text != "storage" ||
        items[1]->kind != Kind::kGlobal || items[2]->kind != Kind::kString ||
        items[3]->kind != Kind::kString || items[4]->kind != Kind::kInt) {
      return Refuse("a persistent id that is not a storage");
    }
    if (items[3]->text != "cpu") {
      return Refuse("a storage on " + items[3]->text +
                    "; move the model to the CPU before saving it");
    }
    const int64_t element_size = StorageElementSize(items[1]->text);
    const int64_t count = items[4]->number;
    if (element_size == 0 || count < 0 || count > kExtentMax) {
      return Refuse("a storage of " + std::to_string(count) + " x " +
                    items[1]->text);
    }
    const std::string& key = items[2]->text;
    const bool numeric = !key.empty() && key.size() <= 20 &&
                         std::all_of(key.begin(), key.end(), [](char c) {
                           return c >= '0' && c <= '9';
                         });
    const std::optional<uint64_t> size =
        numeric ? storage_size_(key) : std::nullopt;
    const auto wanted = static_cast<uint64_t>(count * element_size);
    if (!size.has_value()) return Refuse("no storage named " + key);
    if (*size < wanted) {
      return Refuse("storage " + key + " has " + std::to_string(*size) +
                    " bytes, not " + std::to_string(wanted));
    }
    Push({.kind = Kind::kStorage, .number = count});
    return OkStatus();
  }

  // (storage, offset, sizes, strides, requires_grad, hooks): every element must
  // lie inside the storage.
  Status CheckTensor(const std::vector<ValuePtr>& items) const {
    if (items.size() < 4 || items[0]->kind != Kind::kStorage ||
        items[1]->kind != Kind::kInt || items[2]->kind != Kind::kTuple ||
        items[3]->kind != Kind::kTuple ||
        items[2]->items.size() != items[3]->items.size() ||
        items[2]->items.size() > 64) {
      return Refuse("a tensor with the wrong arguments");
    }
    int64_t last = items[1]->number;
    bool empty = false;
    if (last < 0 || last > kExtentMax) return Refuse("a tensor's offset");
    for (size_t i = 0; i < items[2]->items.size(); ++i) {
      const Value& size = *items[2]->items[i];
      const Value& stride = *items[3]->items[i];
      if (size.kind != Kind::kInt || stride.kind != Kind::kInt ||
          size.number < 0 || stride.number < 0 || size.number > kExtentMax ||
          stride.number > kExtentMax) {
        return Refuse("a tensor's shape");
      }
      if (size.number == 0) {
        empty = true;
        continue;
      }
      const int64_t steps = size.number - 1;
      if (stride.number != 0 && steps > (kExtentMax - last) / stride.number) {
        return Refuse("a tensor that reaches outside its storage");
      }
      last += steps * stride.number;
    }
    if (!empty && last >= items[0]->number) {
      return Refuse("a tensor that reaches outside its storage");
    }
    return OkStatus();
  }

  Status Put(uint32_t index) {
    if (stack_.empty() || stack_.back()->kind == Kind::kMark) {
      return Refuse("nothing to remember");
    }
    memo_[index] = stack_.back();
    return OkStatus();
  }
  Status Get(uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) return Refuse("nothing remembered");
    stack_.push_back(found->second);
    return OkStatus();
  }

  Status Step(uint8_t op) {
    switch (op) {
      case 0x80: {  // PROTO
        SELVAGE_ASSIGN_OR_RETURN(const uint8_t version,
                                 reader_.Read<uint8_t>("protocol"));
        return version == 2 ? OkStatus() : Refuse("not pickle protocol 2");
      }
      case '(':  // MARK
        Push({.kind = Kind::kMark});
        return OkStatus();
      case '}':   // EMPTY_DICT
      case ']':   // EMPTY_LIST
      case 'N':   // NONE
      case 0x88:  // NEWTRUE
      case 0x89:  // NEWFALSE
        Push({});
        return OkStatus();
      case 'K':
        return PushInt<uint8_t>();
      case 'M':
        return PushInt<uint16_t>();
      case 'J':
        return PushInt<int32_t>();
      case 0x8a:
        return PushLong();
      case 'G': {  // BINFLOAT
        SELVAGE_RETURN_IF_ERROR(reader_.ReadBytes(8, "float").status());
        Push({});
        return OkStatus();
      }
      case 'X': {  // BINUNICODE
        SELVAGE_ASSIGN_OR_RETURN(const uint32_t size,
                                 reader_.Read<uint32_t>("string"));
        return PushText(size);
      }
      case 'U': {  // SHORT_BINSTRING
        SELVAGE_ASSIGN_OR_RETURN(const uint8_t size,
                                 reader_.Read<uint8_t>("string"));
        return PushText(size);
      }
      case 'q': {
        SELVAGE_ASSIGN_OR_RETURN(const uint8_t index,
                                 reader_.Read<uint8_t>("index"));
        return Put(index);
      }
      case 'r': {
        SELVAGE_ASSIGN_OR_RETURN(const uint32_t index,
                                 reader_.Read<uint32_t>("index"));
        return Put(index);
      }
      case 'h': {
        SELVAGE_ASSIGN_OR_RETURN(const uint8_t index,
                                 reader_.Read<uint8_t>("index"));
        return Get(index);
      }
      case 'j': {
        SELVAGE_ASSIGN_OR_RETURN(const uint32_t index,
                                 reader_.Read<uint32_t>("index"));
        return Get(index);
      }
      case ')':
        return PushTuple({});
      case 0x85:
        return PushTupleOf(1);
      case 0x86:
        return PushTupleOf(2);
      case 0x87:
        return PushTupleOf(3);
      case 't': {
        SELVAGE_ASSIGN_OR_RETURN(std::vector<ValuePtr> items, PopToMark());
        return PushTuple(std::move(items));
      }
      case 'a': {  // APPEND
        SELVAGE_ASSIGN_OR_RETURN(ValuePtr item, Pop());
        return Contain({std::move(item)});
      }
      case 's': {  // SETITEM
        SELVAGE_ASSIGN_OR_RETURN(ValuePtr value, Pop());
        SELVAGE_ASSIGN_OR_RETURN(ValuePtr key, Pop());
        return Contain({std::move(key), std::move(value)});
      }
      case 'e':    // APPENDS
      case 'u': {  // SETITEMS
        SELVAGE_ASSIGN_OR_RETURN(const std::vector<ValuePtr> items,
                                 PopToMark());
        return Contain(items);
      }
      case 'c':
        return Global();
      case 0x81:
        return NewObject();
      case 'b': {  // BUILD
        SELVAGE_ASSIGN_OR_RETURN(ValuePtr state, Pop());
        return Contain({std::move(state)});
      }
      case 'R':
        return Reduce();
      case 'Q':
        return PersistentId();
      default:
        return Refuse("opcode " + std::to_string(op) + " is not permitted");
    }
  }

  const std::string_view name_;
  const size_t size_;
  ByteReader reader_;
  const StorageSize& storage_size_;
  std::vector<ValuePtr> stack_;
  std::map<uint32_t, ValuePtr> memo_;
};

}  // namespace

Status ScanPickle(std::string_view name, ByteSpan pickle,
                  const StorageSize& storage_size) {
  const Status status = Scan(name, pickle, storage_size).Run();
  if (status.code() == StatusCode::kOutOfRange) {
    return InvalidArgument(std::string(name) + ": " +
                           std::string(status.message()));
  }
  return status;
}

}  // namespace selvage::client::torch_engine
