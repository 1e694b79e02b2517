# Pure machines and policies, and the drivers that carry out what they decide.
selvage_library(coordinator
  SRCS
    ${CMAKE_CURRENT_LIST_DIR}/api.cc
    ${CMAKE_CURRENT_LIST_DIR}/artefact_uploads.cc
    ${CMAKE_CURRENT_LIST_DIR}/blob_store.cc
    ${CMAKE_CURRENT_LIST_DIR}/buffer_pool.cc
    ${CMAKE_CURRENT_LIST_DIR}/claim_keeper.cc
    ${CMAKE_CURRENT_LIST_DIR}/delta_cache.cc
    ${CMAKE_CURRENT_LIST_DIR}/coordinator.cc
    ${CMAKE_CURRENT_LIST_DIR}/coordinator_parts.cc
    ${CMAKE_CURRENT_LIST_DIR}/describe.cc
    ${CMAKE_CURRENT_LIST_DIR}/enrolment.cc
    ${CMAKE_CURRENT_LIST_DIR}/held_updates.cc
    ${CMAKE_CURRENT_LIST_DIR}/model_store.cc
    ${CMAKE_CURRENT_LIST_DIR}/orphans.cc
    ${CMAKE_CURRENT_LIST_DIR}/next_model.cc
    ${CMAKE_CURRENT_LIST_DIR}/partial.cc
    ${CMAKE_CURRENT_LIST_DIR}/evaluation_partial.cc
    ${CMAKE_CURRENT_LIST_DIR}/requests.cc
    ${CMAKE_CURRENT_LIST_DIR}/round.cc
    ${CMAKE_CURRENT_LIST_DIR}/round_result.cc
    ${CMAKE_CURRENT_LIST_DIR}/running_sums.cc
    ${CMAKE_CURRENT_LIST_DIR}/staged_upload.cc
    ${CMAKE_CURRENT_LIST_DIR}/stopping.cc
    ${CMAKE_CURRENT_LIST_DIR}/task_admin.cc
    ${CMAKE_CURRENT_LIST_DIR}/task_definition.cc
    ${CMAKE_CURRENT_LIST_DIR}/task_driver.cc
    ${CMAKE_CURRENT_LIST_DIR}/task_driver_replicas.cc
    ${CMAKE_CURRENT_LIST_DIR}/task_driver_rounds.cc
    ${CMAKE_CURRENT_LIST_DIR}/task_driver_telemetry.cc
    ${CMAKE_CURRENT_LIST_DIR}/tickets.cc
    ${CMAKE_CURRENT_LIST_DIR}/upload_batch.cc
    ${CMAKE_CURRENT_LIST_DIR}/upload_counter.cc
    ${CMAKE_CURRENT_LIST_DIR}/upload_ingest.cc
    ${CMAKE_CURRENT_LIST_DIR}/watchers.cc
  DEPS selvage::aggregation selvage::plan selvage::crypto selvage::base
  PRIVATE_DEPS nlohmann_json::nlohmann_json Threads::Threads)
