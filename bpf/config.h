/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The settings of one run: read-only data, so a switch that is off costs nothing. */
#ifndef TWSCOPE_CONFIG_H
#define TWSCOPE_CONFIG_H

#include "abi.h"

const volatile struct tws_config tws_cfg = {};

#endif
