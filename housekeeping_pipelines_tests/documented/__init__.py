"""The limits, defaults, parameters and names that README.md and docs/ state are those of the code.

A number is written once in a document and once in the code; each test reads both. Tables are compared whole, so that
neither a row nor a value can be left behind; numbers in prose are found by the words around them.
"""
