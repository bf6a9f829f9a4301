"""Exports in fp16, bf16 and int8: conversion, calibration and the accuracy check."""
