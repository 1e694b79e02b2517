// Request ids: the same id gets the same answer and has one effect.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

// The row a mutating request leaves. `resource` is filled in by whoever makes
// it. INVALID_ARGUMENT if the id is longer than 64 bytes; it may be empty.
Result<RequestRow> MakeRequest(const std::string& id, std::string_view kind,
                               std::initializer_list<std::string_view> fields,
                               Time now);

// The resource that an earlier request with this id made. INVALID_ARGUMENT if
// that request was another one.
Result<std::optional<std::string>> FindAnswered(Store& store,
                                                const RequestRow& request);

// INVALID_ARGUMENT unless `name` is [a-z0-9-]{1,64} and starts with a letter.
Status CheckName(std::string_view what, std::string_view name);

// Page sizes: 0 means 100, more than 1000 means 1000.
uint32_t PageLimit(const PageRequest& page);
// The number in a page token; 0 for an empty one. INVALID_ARGUMENT.
Result<uint64_t> PageStart(const PageRequest& page);

}  // namespace selvage::coordinator
