# Pure machines and policies, and the drivers that carry out what they decide.
selvage_library(coordinator
  SRCS
    ${CMAKE_CURRENT_LIST_DIR}/api.cc
    ${CMAKE_CURRENT_LIST_DIR}/round.cc
  DEPS selvage::aggregation selvage::plan selvage::crypto selvage::base
  PRIVATE_DEPS nlohmann_json::nlohmann_json Threads::Threads)
