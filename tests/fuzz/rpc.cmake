# The messages need libprotobuf alone, so the clang tree, which has no gRPC,
# fuzzes them too.
if(SELVAGE_WITH_GRPC)
  set(rpc_convert selvage::coordinator_convert)
else()
  find_package(Protobuf REQUIRED)
  set(messages ${CMAKE_CURRENT_BINARY_DIR}/fuzz_messages)
  set(generated)
  foreach(proto device admin)
    set(stem selvage/v1/${proto})
    add_custom_command(
      OUTPUT ${messages}/${stem}.pb.cc ${messages}/${stem}.pb.h
      COMMAND ${CMAKE_COMMAND} -E make_directory ${messages}
      COMMAND protobuf::protoc --proto_path=${PROJECT_SOURCE_DIR}/proto
        --cpp_out=${messages} ${stem}.proto
      DEPENDS ${PROJECT_SOURCE_DIR}/proto/${stem}.proto
      VERBATIM)
    list(APPEND generated ${messages}/${stem}.pb.cc)
  endforeach()
  add_library(fuzz_messages STATIC ${generated})
  target_compile_features(fuzz_messages PUBLIC cxx_std_20)
  target_include_directories(fuzz_messages SYSTEM PUBLIC ${messages})
  target_link_libraries(fuzz_messages PUBLIC protobuf::libprotobuf)

  selvage_library(fuzz_convert
    SRCS ${PROJECT_SOURCE_DIR}/coordinator/rpc/convert.cc
    DEPS selvage::coordinator fuzz_messages)
  set(rpc_convert selvage::fuzz_convert)
endif()
selvage_fuzz(fuzz_rpc_messages
  SRCS ${CMAKE_CURRENT_LIST_DIR}/rpc/fuzz_rpc_messages.cc
  DEPS ${rpc_convert})
