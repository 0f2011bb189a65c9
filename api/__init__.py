"""The REST API: HTTP in, one call, schema out.

A route is a short function: who asks (`api.access`), one transaction or one verb, one schema. What goes wrong is raised as an error of
Keeper's and told by `api.problems`; what a POST changed is told again to a repeated request by `api.once`.
"""
