// A program file is refused, or yields a program that is valid (an archive's
// digest and size, which the file does not have, aside).
#include "base/bytes.h"
#include "base/check.h"
#include "plan/program.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace selvage::plan;
  auto file = ParseProgramFile(
      selvage::AsText({data, size}),
      [](const std::string&) -> selvage::Result<std::string> {
        return std::string("def forward(self, x):\n    return x\n");
      });
  if (file.ok()) {
    Program& program = file->program;
    if (program.kind == ProgramKind::kArchive) {
      program.archive_digest.bytes[0] = 1;
      program.archive_size_bytes = 1;
    }
    SELVAGE_CHECK(program.Validate().ok());
    SELVAGE_CHECK(ParseProgram(CanonicalJson(program)).ok());
  }
  return 0;
}
