"""The same jobs on a cluster: Apache Spark where the data outgrows one machine."""
