#include "client/agent/json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace selvage::agent {
namespace {

constexpr int kDepthMax = 16;

// Before anything is built of it: every bracket of a hostile line would become
// an object of its own.
bool IsTooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDepthMax) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

Result<nlohmann::ordered_json> ParseJson(std::string_view text,
                                         std::string_view what) {
  using nlohmann::ordered_json;
  if (IsTooDeep(text)) {
    return InvalidArgument(std::string(what) + " is nested deeper than " +
                           std::to_string(kDepthMax));
  }
  std::vector<std::set<std::string>> keys;
  std::string twice;
  const auto watch = [&](int, ordered_json::parse_event_t event,
                         ordered_json& parsed) {
    if (event == ordered_json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == ordered_json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == ordered_json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) twice = key;
    }
    return true;
  };
  try {
    ordered_json json = ordered_json::parse(text, watch);
    if (!twice.empty()) {
      return InvalidArgument(std::string(what) + " has the key " +
                             Quoted(twice) + " twice");
    }
    return json;
  } catch (const ordered_json::exception& error) {
    return InvalidArgument(std::string(what) +
                           " is not JSON: " + Quoted(error.what()));
  }
}

std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 64;
  const std::string shown =
      nlohmann::json(std::string(text.substr(0, kShown)))
          .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  return text.size() <= kShown ? shown : shown + "...";
}

}  // namespace selvage::agent
