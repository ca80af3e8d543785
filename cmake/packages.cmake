# The Debian packages (tools/package): meshd with the daemon and meshcat, libmeshd0, libmeshd-dev.
#
# What is in which stands with each install(); here is what the packages say of themselves. The
# build must have /usr as its prefix, because where libraries lie follows from it.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME meshd)
set(CPACK_PACKAGE_VENDOR meshd)
set(CPACK_PACKAGE_CONTACT "the meshd maintainers <maintainers@meshd.example>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_SET_DESTDIR ON) # so that /etc is /etc
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL meshd libmeshd libmeshd-dev)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
# Manual pages are compressed, copyright and changelog added, before the files are counted.
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_SOURCE_DIR}/cmake/packages_finish.cmake)
set(CPACK_MESHD_DEBIAN ${CMAKE_SOURCE_DIR}/tools/debian)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(version ${PROJECT_VERSION}-1)
set(debian ${CMAKE_SOURCE_DIR}/tools/debian)

set(CPACK_DEBIAN_MESHD_PACKAGE_NAME meshd)
set(CPACK_DEBIAN_MESHD_PACKAGE_SECTION net)
set(CPACK_COMPONENT_MESHD_DESCRIPTION "service-registry and forwarding mesh: daemon and query tool
Each node of a mesh offers services (a name and where its backend answers),
tells its peers about them, answers who has what, and brings clients to the
backend of the service that they name. There is no central server.

This package has the daemon, which starts on the loopback interface and offers
nothing until /etc/meshd/meshd.yaml says otherwise, and meshcat, which asks it.")
set(CPACK_DEBIAN_MESHD_PACKAGE_DEPENDS "adduser, init-system-helpers (>= 1.54~)")
set(CPACK_DEBIAN_MESHD_PACKAGE_SUGGESTS "bash-completion, jq, prometheus")
set(CPACK_DEBIAN_MESHD_PACKAGE_CONTROL_EXTRA
  "${debian}/postinst;${debian}/prerm;${debian}/postrm;${debian}/conffiles")

set(CPACK_DEBIAN_LIBMESHD_PACKAGE_NAME libmeshd0)
set(CPACK_DEBIAN_LIBMESHD_PACKAGE_SECTION libs)
set(CPACK_COMPONENT_LIBMESHD_DESCRIPTION "client library of the meshd mesh
Programs find services, offer their own and follow changes through a node of
the mesh.")
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_LIBMESHD_PACKAGE_CONTROL_EXTRA "${debian}/triggers")

set(CPACK_DEBIAN_LIBMESHD-DEV_PACKAGE_NAME libmeshd-dev)
set(CPACK_DEBIAN_LIBMESHD-DEV_PACKAGE_SECTION libdevel)
set(CPACK_COMPONENT_LIBMESHD-DEV_DESCRIPTION "client library of the meshd mesh, to build programs with
The header, the static library, what pkg-config and CMake need, the protocol's
definition for programs in other languages, and examples.")
set(CPACK_DEBIAN_LIBMESHD-DEV_PACKAGE_DEPENDS
  "libmeshd0 (= ${version}), libprotobuf-c-dev, libssl-dev")

include(CPack)
