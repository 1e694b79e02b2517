# The commit a binary was built from, for `--version`: written to a header at
# build time (not at configure time, which would go stale), touched only when it
# changes.
find_package(Git QUIET)
set(SELVAGE_VERSION_DIR ${PROJECT_BINARY_DIR}/version)
add_custom_target(selvage_commit
  COMMAND ${CMAKE_COMMAND}
    -D GIT=${GIT_EXECUTABLE} -D SOURCE=${PROJECT_SOURCE_DIR}
    -D VERSION=${PROJECT_VERSION} -D OUT=${SELVAGE_VERSION_DIR}/selvage_version.h
    -P ${PROJECT_SOURCE_DIR}/cmake/write_version.cmake
  BYPRODUCTS ${SELVAGE_VERSION_DIR}/selvage_version.h
  COMMENT "" VERBATIM)
