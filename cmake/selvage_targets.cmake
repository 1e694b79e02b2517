# The verbs, so that every CMakeLists.txt in the tree reads as a table of
# contents: selvage_library, selvage_executable, selvage_shared_object,
# selvage_test, selvage_fuzz.

add_library(selvage_options INTERFACE)
target_compile_features(selvage_options INTERFACE cxx_std_20)
# GCC 12's flow-sensitive warnings report the insides of std::string, vector and
# variant when optimising (GCC bugs 105651, 105329, 105562); the sanitizer trees
# and clang look for the real thing.
target_compile_options(selvage_options INTERFACE
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread;-Wno-maybe-uninitialized>
  -Wall -Wextra -Wconversion -Wshadow
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Wimplicit-fallthrough>)

# Sanitizers go to every target of the tree, generated code included.
if(SELVAGE_SANITIZE)
  add_compile_options(
    -fsanitize=${SELVAGE_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SELVAGE_SANITIZE})
endif()

# selvage_library(<name> SRCS ... [DEPS ...] [PRIVATE_DEPS ...])
# Defines selvage_<name> and the alias selvage::<name>. DEPS are what its headers
# show; PRIVATE_DEPS what only its .cc files use.
function(selvage_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS;PRIVATE_DEPS")
  add_library(selvage_${name} STATIC ${arg_SRCS})
  add_library(selvage::${name} ALIAS selvage_${name})
  set_target_properties(selvage_${name} PROPERTIES
    POSITION_INDEPENDENT_CODE ON EXPORT_NAME ${name})
  target_compile_features(selvage_${name} PUBLIC cxx_std_20)
  target_include_directories(selvage_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/selvage>)
  target_link_libraries(selvage_${name}
    PUBLIC ${arg_DEPS}
    PRIVATE $<BUILD_INTERFACE:selvage_options> ${arg_PRIVATE_DEPS})
endfunction()

# selvage_executable(<file name> SRCS ... DEPS ...)
function(selvage_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS")
  add_executable(${name} ${arg_SRCS})
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  target_link_libraries(${name} PRIVATE selvage_options ${arg_DEPS})
endfunction()

# selvage_shared_object(<target> <file name> <version script>): what every shared
# object of ours has: a SONAME with the major version, only the names of the
# version script, no undefined names, no unloading (gRPC and LibTorch cannot be).
function(selvage_shared_object target file script)
  set(script ${CMAKE_CURRENT_SOURCE_DIR}/${script})
  set_target_properties(${target} PROPERTIES
    OUTPUT_NAME ${file} LINKER_LANGUAGE CXX
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib
    LINK_DEPENDS ${script})
  target_link_options(${target} PRIVATE
    -Wl,--version-script=${script} -Wl,-z,nodelete -Wl,--gc-sections -Wl,--as-needed)
  if(NOT SELVAGE_SANITIZE)
    target_link_options(${target} PRIVATE -Wl,--no-undefined)
  endif()
endfunction()

# selvage_test(<name> LABELS unit|contract|sim|integration|... SRCS ... DEPS ...)
# One executable and one ctest entry. Several suites of one layer share an
# executable: linking, not testing, is what costs. NIGHTLY arguments and
# NIGHTLY_ENVIRONMENT add an entry that runs it longer (scripts/test --nightly).
function(selvage_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "NO_GTEST" "TIMEOUT"
    "LABELS;SRCS;DEPS;ENVIRONMENT;NIGHTLY;NIGHTLY_ENVIRONMENT")
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE selvage_options selvage_testing ${arg_DEPS})
  if(NOT arg_NO_GTEST)
    target_link_libraries(${name} PRIVATE GTest::gmock GTest::gtest_main)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
    LABELS "${arg_LABELS}" ENVIRONMENT "${arg_ENVIRONMENT}")
  if(arg_TIMEOUT)
    set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT})
  endif()
  if(arg_NIGHTLY OR arg_NIGHTLY_ENVIRONMENT)
    add_test(NAME ${name}_nightly COMMAND ${name} ${arg_NIGHTLY})
    set_tests_properties(${name}_nightly PROPERTIES LABELS nightly TIMEOUT 3600
      ENVIRONMENT "${arg_ENVIRONMENT};${arg_NIGHTLY_ENVIRONMENT}")
  endif()
endfunction()

# selvage_fuzz(<name> SRCS ... DEPS ...): a libFuzzer target with the seed corpus
# tests/fuzz/corpus/<name>/. In the `fuzz` preset ctest fuzzes it for
# SELVAGE_FUZZ_SECONDS; in every other tree it replays the corpus.
function(selvage_fuzz name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SRCS;DEPS")
  set(corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  add_executable(${name} ${arg_SRCS})
  target_link_libraries(${name} PRIVATE selvage_options selvage_testing ${arg_DEPS})
  if(SELVAGE_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    set(scratch ${CMAKE_CURRENT_BINARY_DIR}/${name}_corpus)
    file(MAKE_DIRECTORY ${scratch})
    # Short runs start from one seed, so that a change is judged by what it
    # changes; the long ones draw theirs.
    set(seed 0)
    if(SELVAGE_FUZZ_SECONDS LESS 120)
      set(seed 1)
    endif()
    add_test(NAME ${name} COMMAND ${name} -max_total_time=${SELVAGE_FUZZ_SECONDS}
      -seed=${seed} -rss_limit_mb=2048 -timeout=10 -verbosity=0 -print_final_stats=1
      -artifact_prefix=${scratch}. ${scratch} ${corpus})
  else()
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    add_test(NAME ${name} COMMAND ${name} ${corpus})
  endif()
  add_dependencies(fuzzers ${name})
  math(EXPR timeout "${SELVAGE_FUZZ_SECONDS} + 120")
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT ${timeout}
    ENVIRONMENT "UBSAN_OPTIONS=print_stacktrace=1")
endfunction()
