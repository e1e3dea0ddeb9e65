# What other projects build against: headers, both libraries, the CMake package and the pkg-config files. Inside the package folder in a
# wheel, at the usual places under a plain `cmake --install`. Always lib, never lib64: the search through the wheel looks nowhere else.

include(CMakePackageConfigHelpers)

if(DEFINED SKBUILD)
  set(root pykernel/)
else()
  set(root "")
  set_target_properties(pykernel_c PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endif()
set(include_dir ${root}include)
set(library_dir ${root}lib)
set(package_dir ${library_dir}/cmake/pykernel)

# $<INSTALL_INTERFACE:include> alone would mean site-packages/include.
foreach(target pykernel pykernel_c)
  target_include_directories(
    ${target} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include> $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>
                        $<INSTALL_INTERFACE:${include_dir}>
  )
endforeach()

install(DIRECTORY csrc/include/pykernel ${PROJECT_BINARY_DIR}/include/pykernel DESTINATION ${include_dir})
install(
  TARGETS pykernel pykernel_c
  EXPORT pykernelTargets
  ARCHIVE DESTINATION ${library_dir}
  LIBRARY DESTINATION ${library_dir}
)
install(EXPORT pykernelTargets NAMESPACE pykernel:: DESTINATION ${package_dir})

configure_package_config_file(
  cmake/pykernelConfig.cmake.in ${PROJECT_BINARY_DIR}/pykernelConfig.cmake INSTALL_DESTINATION ${package_dir}
)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/pykernelConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pykernelConfig.cmake ${PROJECT_BINARY_DIR}/pykernelConfigVersion.cmake
        DESTINATION ${package_dir}
)

foreach(name pykernel pykernel_c)
  configure_file(cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${library_dir}/pkgconfig)
endforeach()
