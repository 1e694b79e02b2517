selvage_fuzz(fuzz_data_set
  SRCS ${CMAKE_CURRENT_LIST_DIR}/cli/fuzz_data_set.cc
  DEPS selvage::cli_data_set)
