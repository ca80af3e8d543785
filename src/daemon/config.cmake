# The settings, as a library of their own: they are tested and fuzzed without the rest of the room.
# libyaml alone: config_yaml.c says why.
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
add_library(meshd_config STATIC
  ${CMAKE_CURRENT_LIST_DIR}/config.c
  ${CMAKE_CURRENT_LIST_DIR}/config_diff.c
  ${CMAKE_CURRENT_LIST_DIR}/config_ingress.c
  ${CMAKE_CURRENT_LIST_DIR}/config_list.c
  ${CMAKE_CURRENT_LIST_DIR}/config_policy.c
  ${CMAKE_CURRENT_LIST_DIR}/config_print.c
  ${CMAKE_CURRENT_LIST_DIR}/config_process.c
  ${CMAKE_CURRENT_LIST_DIR}/config_source.c
  ${CMAKE_CURRENT_LIST_DIR}/config_table.c
  ${CMAKE_CURRENT_LIST_DIR}/config_trust.c
  ${CMAKE_CURRENT_LIST_DIR}/config_value.c
  ${CMAKE_CURRENT_LIST_DIR}/config_yaml.c)
target_link_libraries(meshd_config PUBLIC meshd_flags meshd_base meshd_policy meshd_wire PkgConfig::YAML)
