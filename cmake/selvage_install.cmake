# What `cmake --install` gives: the programs; libselvage.so with its two headers
# for apps (decision 0006); and the device side as static libraries with theirs
# (decision 0005). Components are the Debian packages of packaging/.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/selvage)
function(selvage_install_program program component)
  if(TARGET ${program})
    # Beside its libraries wherever the tree is put.
    set_target_properties(${program} PROPERTIES
      INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
    install(TARGETS ${program} COMPONENT ${component}
      RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()
selvage_install_program(selvage coordinator)
selvage_install_program(selvage-coordinator coordinator)
selvage_install_program(selvage-device agent)
selvage_install_program(selvage-torch tools)

install(TARGETS selvage_shared EXPORT selvage-shared-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library
  NAMELINK_COMPONENT dev)
if(TARGET selvage_grpc_shared)
  install(TARGETS selvage_grpc_shared
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library NAMELINK_SKIP)
endif()
if(TARGET selvage_torch_shared)
  # Opened at run time, never linked: no name to link it by.
  install(TARGETS selvage_torch_shared
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT engine NAMELINK_SKIP)
endif()
install(FILES
  ${PROJECT_SOURCE_DIR}/client/capi/selvage.h
  ${PROJECT_SOURCE_DIR}/client/capi/selvage.hpp
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/selvage COMPONENT dev)
file(RELATIVE_PATH SELVAGE_LIBDIR_TO_INCLUDEDIR
  ${CMAKE_INSTALL_FULL_LIBDIR} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/selvage.pc.in ${PROJECT_BINARY_DIR}/selvage.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/selvage.pc COMPONENT dev
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

foreach(library base crypto plan aggregation proto client_core client_store
    client_archive_scan client_rpc client client_training_torch)
  if(TARGET selvage_${library})
    install(TARGETS selvage_${library} EXPORT selvage-targets
      ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT static)
  endif()
endforeach()
foreach(folder base crypto plan aggregation client)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/selvage COMPONENT static
    FILES_MATCHING PATTERN "*.h"
    PATTERN "internal" EXCLUDE PATTERN "agent" EXCLUDE PATTERN "capi" EXCLUDE)
endforeach()
install(EXPORT selvage-shared-targets NAMESPACE selvage::
  DESTINATION ${package_dir} COMPONENT dev)
install(EXPORT selvage-targets NAMESPACE selvage::
  DESTINATION ${package_dir} COMPONENT static)
configure_package_config_file(cmake/selvage-config.cmake.in
  ${PROJECT_BINARY_DIR}/selvage-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/selvage-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/selvage-config.cmake
  ${PROJECT_BINARY_DIR}/selvage-config-version.cmake
  DESTINATION ${package_dir} COMPONENT dev)
