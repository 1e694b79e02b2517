// Examples from a table: CSV (RFC 4180) with a header, and images that it
// names.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "client/agent/manifest.h"

namespace selvage::agent {

// The bytes of a file that a cell names.
using ImageLoader = std::function<Result<Bytes>(const std::string& name)>;

// `csv` and `manifest` must outlive the reader. Errors name line, column and
// value. Bounds: 65,536 columns, 1,000,000 rows, 1 MiB a row. INVALID_ARGUMENT
// here: the header lacks a column or has one twice.
Result<std::unique_ptr<ExampleReader>> OpenTable(std::string_view csv,
                                                 const Manifest& manifest,
                                                 ImageLoader images);

}  // namespace selvage::agent
