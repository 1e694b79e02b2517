selvage_fuzz(fuzz_session
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_session.cc
  DEPS selvage::client_core)
selvage_fuzz(fuzz_crash_ledger
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_crash_ledger.cc
  DEPS selvage::client_core)
selvage_fuzz(fuzz_usage_ledger
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_usage_ledger.cc
  DEPS selvage::client_core)
selvage_fuzz(fuzz_enrolment_bundle
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_enrolment_bundle.cc
  DEPS selvage::client)
selvage_fuzz(fuzz_idx
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_idx.cc
  DEPS selvage::client_agent)
selvage_fuzz(fuzz_spool
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_spool.cc
  DEPS selvage::client_agent)
selvage_fuzz(fuzz_archive_scan
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_archive_scan.cc
  DEPS selvage::client_archive_scan)
selvage_fuzz(fuzz_pickle_scan
  SRCS ${CMAKE_CURRENT_LIST_DIR}/client/fuzz_pickle_scan.cc
  DEPS selvage::client_archive_scan)
