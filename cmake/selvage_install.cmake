# What `cmake --install` gives: the four programs, and the device side as static
# libraries with their headers and a CMake package (docs/decisions/0005).
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/selvage)
foreach(program selvage selvage-coordinator selvage-device selvage-torch)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endforeach()
foreach(library base crypto plan aggregation proto client_core client_store
    client_rpc client client_archive_scan client_training_torch)
  if(TARGET selvage_${library})
    install(TARGETS selvage_${library} EXPORT selvage-targets
      ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  endif()
endforeach()
foreach(folder base crypto plan aggregation client)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/selvage
    FILES_MATCHING PATTERN "*.h"
    PATTERN "internal" EXCLUDE PATTERN "agent" EXCLUDE)
endforeach()
install(EXPORT selvage-targets NAMESPACE selvage:: DESTINATION ${package_dir})
configure_package_config_file(cmake/selvage-config.cmake.in
  ${PROJECT_BINARY_DIR}/selvage-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/selvage-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/selvage-config.cmake
  ${PROJECT_BINARY_DIR}/selvage-config-version.cmake DESTINATION ${package_dir})
