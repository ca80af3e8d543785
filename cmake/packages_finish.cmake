# Run by CPack over each package's staged files: what Debian's policy asks for that a plain
# installation does not have.
find_program(GZIP gzip REQUIRED)
set(names_meshd meshd)
set(names_libmeshd libmeshd0)
set(names_libmeshd-dev libmeshd-dev)
foreach(component ${CPACK_COMPONENTS_ALL})
  set(root ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/${component})
  set(doc ${root}/usr/share/doc/${names_${component}})
  file(REMOVE ${root}/usr/share/doc/meshd/LICENSE) # it stands in copyright
  file(COPY ${CPACK_MESHD_DEBIAN}/copyright DESTINATION ${doc}
    FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
  file(COPY_FILE ${CPACK_MESHD_DEBIAN}/changelog ${doc}/changelog.Debian)
  file(CHMOD ${doc}/changelog.Debian PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
  file(GLOB_RECURSE pages ${root}/usr/share/man/*)
  execute_process(COMMAND ${GZIP} -9nf ${doc}/changelog.Debian ${pages} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
