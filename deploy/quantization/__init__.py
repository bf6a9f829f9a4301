"""Exports in fp16, bf16 and int8: conversion, accuracy, and the choice of what ships."""
