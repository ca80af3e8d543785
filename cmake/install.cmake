# Where things go that are not the build's own: settings, the unit, completion.
#
# /etc belongs to /usr, and paths stand in the unit; both depend on the prefix, which may be another
# one when it is installed (cmake --install --prefix), so they are worked out then.
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME meshd) # what names no other is part of the daemon's package

function(meshd_install_system)
  install(CODE "
    set(prefix \"\${CMAKE_INSTALL_PREFIX}\")
    set(sysconfdir \"\${prefix}/etc\")
    if(prefix STREQUAL \"/usr\")
      set(sysconfdir /etc)
    endif()
    set(sbindir \"\${prefix}/${CMAKE_INSTALL_SBINDIR}\")
    set(bindir \"\${prefix}/${CMAKE_INSTALL_BINDIR}\")
    # Two may be installing at once, to different places.
    string(MD5 place \"\$ENV{DESTDIR}\${prefix}\")
    set(unit \"${CMAKE_BINARY_DIR}/units/\${place}/meshd.service\")
    configure_file(\"${CMAKE_SOURCE_DIR}/tools/systemd/meshd.service.in\" \"\${unit}\" @ONLY)
    file(INSTALL \"\${unit}\" DESTINATION \"\${prefix}/lib/systemd/system\")
    file(REMOVE_RECURSE \"${CMAKE_BINARY_DIR}/units/\${place}\")
    if(EXISTS \"\$ENV{DESTDIR}\${sysconfdir}/meshd/meshd.yaml\")
      message(STATUS \"Kept: \$ENV{DESTDIR}\${sysconfdir}/meshd/meshd.yaml\")
    else()
      file(INSTALL \"${CMAKE_SOURCE_DIR}/tools/meshd.yaml\" DESTINATION \"\${sysconfdir}/meshd\")
    endif()
    " COMPONENT meshd)
  install(FILES ${CMAKE_SOURCE_DIR}/tools/systemd/meshd.sysusers DESTINATION lib/sysusers.d
    RENAME meshd.conf)
  install(FILES ${CMAKE_SOURCE_DIR}/tools/systemd/low-ports.conf
    DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
  install(FILES ${CMAKE_SOURCE_DIR}/tools/completion/meshd ${CMAKE_SOURCE_DIR}/tools/completion/meshcat
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
endfunction()
