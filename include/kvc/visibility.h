#ifndef KVC_VISIBILITY_H
#define KVC_VISIBILITY_H
/* KVC_PUBLIC marks what libkvc exports; all other symbols are hidden. */

#if defined(__GNUC__)
#define KVC_PUBLIC __attribute__((visibility("default")))
#else
#define KVC_PUBLIC
#endif

#endif
