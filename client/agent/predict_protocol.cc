#include "client/agent/predict_protocol.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "client/agent/json.h"
#include "client/agent/manifest.h"

namespace selvage::agent {
namespace {

using Json = nlohmann::ordered_json;

struct Request {
  std::optional<Json> id;
  std::string task;
  Bytes input;
  size_t count = 0;
};

Status AppendNumber(const Json& json, int32_t dtype, Bytes& out) {
  const Status bad =
      InvalidArgument("inputs holds " + Quoted(json.dump()) + ", which is no " +
                      std::string(DTypeName(dtype)));
  if (dtype == SELVAGE_F32) {
    if (!json.is_number()) return bad;
    const auto value = static_cast<float>(json.get<double>());
    if (!std::isfinite(value)) return bad;
    AppendLe(out, value);
    return OkStatus();
  }
  if (!json.is_number_integer() ||
      (json.is_number_unsigned() &&
       json.get<uint64_t>() >
           static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))) {
    return bad;
  }
  const auto value = json.get<int64_t>();
  if (dtype == SELVAGE_I64) {
    AppendLe(out, value);
    return OkStatus();
  }
  if (value < 0 || value > 255) return bad;
  out.push_back(static_cast<uint8_t>(value));
  return OkStatus();
}

// Depth is what ParseJson allows.
Status Flatten(const Json& json, int32_t dtype, Bytes& out) {
  if (!json.is_array()) return AppendNumber(json, dtype, out);
  for (const Json& item : json) {
    SELVAGE_RETURN_IF_ERROR(Flatten(item, dtype, out));
  }
  return OkStatus();
}

// The first dimension of `shape`; its product must be `elements`.
Result<size_t> CountOf(const Json& shape, size_t elements) {
  const Status bad =
      InvalidArgument("shape (" + Quoted(shape.dump()) + ") is not that of " +
                      std::to_string(elements) + " elements");
  if (!shape.is_array() || shape.empty() || shape.size() > 9) return bad;
  uint64_t product = 1;
  for (const Json& item : shape) {
    if (!item.is_number_unsigned()) return bad;
    const auto dimension = item.get<uint64_t>();
    if (dimension == 0 || dimension > elements / product) return bad;
    product *= dimension;
  }
  if (product != elements) return bad;
  return shape.front().get<size_t>();
}

Result<Request> ReadRequest(const Json& json,
                            const std::vector<std::string>& tasks) {
  Request request;
  const Json* inputs = nullptr;
  const Json* shape = nullptr;
  int32_t dtype = SELVAGE_F32;
  for (const auto& [key, value] : json.items()) {
    if (key == "id") continue;
    if (key == "task" && value.is_string()) {
      request.task = value.get<std::string>();
    } else if (key == "dtype" && value.is_string() &&
               DTypeOf(value.get<std::string>()).has_value()) {
      dtype = *DTypeOf(value.get<std::string>());
    } else if (key == "inputs" && value.is_array()) {
      inputs = &value;
    } else if (key == "shape") {
      shape = &value;
    } else {
      return InvalidArgument("the request's " + Quoted(key) +
                             " is unknown or makes no sense");
    }
  }
  if (inputs == nullptr || inputs->empty()) {
    return InvalidArgument("the request has no inputs");
  }
  SELVAGE_RETURN_IF_ERROR(Flatten(*inputs, dtype, request.input));
  if (shape != nullptr) {
    SELVAGE_ASSIGN_OR_RETURN(
        request.count,
        CountOf(*shape, request.input.size() / SizeOfDType(dtype)));
  } else {
    request.count = inputs->front().is_array() ? inputs->size() : 1;
  }
  if (request.count > kRequestExamplesMax) {
    return InvalidArgument("the request has " + std::to_string(request.count) +
                           " examples, more than " +
                           std::to_string(kRequestExamplesMax));
  }
  if (request.task.empty()) {
    if (tasks.size() != 1) {
      return FailedPrecondition(
          tasks.empty() ? "no model is installed yet"
                        : "the request names no task, and models of " +
                              std::to_string(tasks.size()) + " are installed");
    }
    request.task = tasks.front();
  }
  return request;
}

// Values [at, ...) as nested lists of shape[dimension...].
Json Nested(const host::Prediction& prediction, size_t dimension, size_t& at) {
  if (dimension == prediction.shape.size()) return prediction.values[at++];
  Json list = Json::array();
  for (int64_t i = 0; i < prediction.shape[dimension]; ++i) {
    list.push_back(Nested(prediction, dimension + 1, at));
  }
  return list;
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json ErrorOf(const Status& status) {
  return {{"error",
           {{"code", std::string(StatusCodeName(status.code()))},
            {"message", std::string(status.message())}}}};
}

}  // namespace

std::string ErrorLine(const Status& status) { return Dump(ErrorOf(status)); }

std::string AnswerRequest(std::string_view line,
                          const std::vector<std::string>& tasks,
                          const Predictor& predict) {
  const Result<Json> json = ParseJson(line, "the request");
  if (!json.ok()) return ErrorLine(json.status());
  if (!json->is_object()) {
    return ErrorLine(InvalidArgument("the request is no object"));
  }
  // Given back with every answer: how a client tells them apart.
  Json answer = Json::object();
  if (const auto id = json->find("id"); id != json->end()) {
    if (!id->is_primitive()) {
      return ErrorLine(InvalidArgument("id is neither text nor a number"));
    }
    answer["id"] = *id;
  }
  const auto fail = [&](const Status& status) {
    answer.update(ErrorOf(status));
    return Dump(answer);
  };
  const Result<Request> request = ReadRequest(*json, tasks);
  if (!request.ok()) return fail(request.status());
  const Result<host::Prediction> prediction =
      predict(request->task, request->input, request->count);
  if (!prediction.ok()) return fail(prediction.status());
  uint64_t elements = 1;
  for (const int64_t dimension : prediction->shape) {
    elements *= static_cast<uint64_t>(dimension);
  }
  if (elements != prediction->values.size()) {
    return fail(Internal("the prediction is not of its shape"));
  }
  size_t at = 0;
  answer["outputs"] = Nested(*prediction, 0, at);
  answer["model"] = {{"task", request->task},
                     {"version", prediction->version},
                     {"personal", prediction->personal}};
  return Dump(answer);
}

}  // namespace selvage::agent
