#ifndef KVC_VISIBILITY_H
#define KVC_VISIBILITY_H
/* KVC_PUBLIC marks what libkvc exports, KVC_HIDDEN what belongs to a class that it exports and
 * stays inside. */

#if defined(__GNUC__)
#define KVC_PUBLIC __attribute__((visibility("default")))
#define KVC_HIDDEN __attribute__((visibility("hidden")))
#else
#define KVC_PUBLIC
#define KVC_HIDDEN
#endif

#endif
