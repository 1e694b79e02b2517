#include "coordinator/requests.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace selvage::coordinator {
namespace {

constexpr size_t kRequestIdSizeMax = 64;
constexpr size_t kNameSizeMax = 64;
constexpr uint32_t kPageSizeDefault = 100;
constexpr uint32_t kPageSizeMax = 1000;

}  // namespace

Result<RequestRow> MakeRequest(const std::string& id, std::string_view kind,
                               std::initializer_list<std::string_view> fields,
                               Time now) {
  if (id.size() > kRequestIdSizeMax) {
    return InvalidArgument("request_id has " + std::to_string(id.size()) +
                           " bytes, the limit is " +
                           std::to_string(kRequestIdSizeMax));
  }
  Bytes all = ToBytes(kind);
  for (const std::string_view field : fields) {
    AppendLe(all, static_cast<uint64_t>(field.size()));
    AppendBytes(all, AsBytes(field));
  }
  RequestRow row;
  row.id = id;
  row.kind = kind;
  row.fingerprint = crypto::Sha256(all);
  row.created = now;
  return row;
}

Result<std::optional<std::string>> FindAnswered(Store& store,
                                                const RequestRow& request) {
  if (request.id.empty()) return std::optional<std::string>();
  SELVAGE_ASSIGN_OR_RETURN(std::optional<RequestRow> row,
                           store.FindRequest(request.id));
  if (!row.has_value()) return std::optional<std::string>();
  if (row->kind != request.kind || row->fingerprint != request.fingerprint) {
    return InvalidArgument("request_id " + request.id +
                           " was used for another request");
  }
  return std::optional<std::string>(std::move(row->resource));
}

Status CheckName(std::string_view what, std::string_view name) {
  const auto is_lower = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto is_allowed = [&](char c) {
    return is_lower(c) || (c >= '0' && c <= '9') || c == '-';
  };
  if (name.empty() || name.size() > kNameSizeMax || !is_lower(name.front()) ||
      !std::all_of(name.begin(), name.end(), is_allowed)) {
    return InvalidArgument(
        std::string(what) +
        " must be 1 to 64 of a-z, 0-9 and -, starting with a letter");
  }
  return OkStatus();
}

uint32_t PageLimit(const PageRequest& page) {
  return page.size == 0 ? kPageSizeDefault : std::min(page.size, kPageSizeMax);
}

Result<uint64_t> PageStart(const PageRequest& page) {
  uint64_t value = 0;
  if (page.token.empty()) return value;
  const char* end = page.token.data() + page.token.size();
  const auto [next, error] = std::from_chars(page.token.data(), end, value);
  if (error != std::errc() || next != end) {
    return InvalidArgument("page token " + page.token +
                           " is not one that a list returned");
  }
  return value;
}

}  // namespace selvage::coordinator
