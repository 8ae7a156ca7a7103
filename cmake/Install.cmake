# cmake --install and make package: the commands, libkvc with headers, CMake and pkg-config files, man
# pages, completion, documentation, examples. A build of `installed` has all of it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
# Tests are nothing that an installation waits for.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)
get_property(commands GLOBAL PROPERTY KVC_COMMANDS)
install(TARGETS ${commands} RUNTIME)
add_custom_target(installed DEPENDS ${commands})

if(KVC_SHARED AND TARGET kvc_interface)
  add_dependencies(installed kvc_interface)
  install(TARGETS kvc_interface EXPORT kvcTargets
          LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
          PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kvc
          INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kvc)
  install(EXPORT kvcTargets NAMESPACE kvc:: DESTINATION ${config_dir})
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/kvcConfig.cmake @ONLY
       CONTENT "include(\${CMAKE_CURRENT_LIST_DIR}/kvcTargets.cmake)\n")
  write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvcConfigVersion.cmake
                                   COMPATIBILITY SameMinorVersion)
  install(FILES ${PROJECT_BINARY_DIR}/kvcConfig.cmake ${PROJECT_BINARY_DIR}/kvcConfigVersion.cmake
          DESTINATION ${config_dir})
  file(RELATIVE_PATH KVC_PREFIX_FROM_PC /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" KVC_PREFIX_FROM_PC "${KVC_PREFIX_FROM_PC}")
  configure_file(${PROJECT_SOURCE_DIR}/cmake/kvc.pc.in ${PROJECT_BINARY_DIR}/kvc.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/kvc.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

# Man pages from --help.
find_program(KVC_HELP2MAN help2man)
if(KVC_HELP2MAN)
  set(pages "")
  foreach(command IN LISTS commands)
    set(page ${PROJECT_BINARY_DIR}/man/${command}.1)
    add_custom_command(
      OUTPUT ${page}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/man
      COMMAND ${PROJECT_SOURCE_DIR}/scripts/man_page.sh $<TARGET_FILE:${command}> ${page}
      DEPENDS ${command} ${PROJECT_SOURCE_DIR}/scripts/man_page.sh
      VERBATIM)
    list(APPEND pages ${page})
  endforeach()
  add_custom_target(man ALL DEPENDS ${pages})
  add_dependencies(installed man)
  install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
else()
  message(STATUS "no help2man: there will be no man pages")
endif()

# bash-completion loads a file by the command's name.
foreach(command IN LISTS commands)
  install(FILES ${PROJECT_SOURCE_DIR}/scripts/completion.bash RENAME ${command}
          DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
endforeach()

install(FILES README.md CHANGELOG.md LICENSE THIRD_PARTY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
# Links from the README and between pages lead where they lead in the repository.
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR}
        FILES_MATCHING PATTERN "*.md" PATTERN "*.png")
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DATADIR}/kvc)
# The examples' recipes name it, for editors.
install(FILES docs/formats/recipe.schema.json DESTINATION ${CMAKE_INSTALL_DATADIR}/kvc/docs/formats)
install(PROGRAMS scripts/demo.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/kvc/scripts)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME kvc)
set(CPACK_PACKAGE_CONTACT "The kvc developers <kvc@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Key-value caches of language models in fewer bytes")
set(CPACK_PACKAGE_DESCRIPTION
    "Commands and a library that convert a checkpoint into a bundle whose key-value cache keeps a
 budget, measure what that costs, and generate text with it.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
include(CPack)
