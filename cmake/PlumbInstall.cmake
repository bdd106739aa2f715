# What `make install` and `make package` lay down: the program, the libraries it needs that are not the system's (LibTorch,
# Arrow), recipes with their data, manual page and completions.
#
#   bin/plumb   lib/plumb/*.so   share/plumb/{configs,examples,docs,tools}   share/man   share/bash-completion   share/zsh
include(GNUInstallDirs)
install(TARGETS plumb RUNTIME_DEPENDENCY_SET plumb_libraries RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# Everything outside the system's folders; the linker's own names are no files.
install(RUNTIME_DEPENDENCY_SET plumb_libraries
        PRE_EXCLUDE_REGEXES "^ld-linux" "^libc\\.so" "^libm\\.so"
        POST_EXCLUDE_REGEXES "^/lib/" "^/lib64/" "^/usr/lib/"
        DIRECTORIES ${CMAKE_BUILD_RPATH}
        DESTINATION lib/plumb)
set(plumb_share ${CMAKE_INSTALL_DATADIR}/plumb)
file(GLOB plumb_recipes CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/configs/*.toml)
install(FILES ${plumb_recipes} DESTINATION ${plumb_share}/configs)
install(DIRECTORY examples docs DESTINATION ${plumb_share})
install(PROGRAMS tools/follow_metrics.py DESTINATION ${plumb_share}/tools)
install(FILES README.md LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
# Said by the program that is installed.
set(plumb_said ${PROJECT_BINARY_DIR}/generated/said)
install(CODE "
  file(MAKE_DIRECTORY \"${plumb_said}\")
  foreach(said \"manual>plumb.1\" \"completion;bash>plumb\" \"completion;zsh>_plumb\")
    string(REGEX MATCH \"^(.*)>(.*)$\" all \"\${said}\")
    execute_process(COMMAND \"$<TARGET_FILE:plumb>\" \${CMAKE_MATCH_1}
                    OUTPUT_FILE \"${plumb_said}/\${CMAKE_MATCH_2}\" COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
  execute_process(COMMAND gzip -9nf \"${plumb_said}/plumb.1\" COMMAND_ERROR_IS_FATAL ANY)")
install(FILES ${plumb_said}/plumb.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${plumb_said}/plumb DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${plumb_said}/_plumb DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME plumb)
set(CPACK_PACKAGE_CONTACT "Plumb maintainers <maintainers@plumb.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Reinforcement learning for language models, in one native program")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "bubblewrap, python3")
# What dpkg of Debian 12 reads, and packs half a gigabyte in seconds.
set(CPACK_DEBIAN_COMPRESSION_TYPE zstd)
include(CPack)
